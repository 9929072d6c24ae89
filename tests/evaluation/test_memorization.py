"""Longest matches of texts in the training text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.evaluation.memorization import SuffixAutomaton, copied_share, longest_matches
from atlas.evaluation.samples import excerpts
from atlas.tokens.shards import TokenSplit
from tests.small import write_tokens

texts = st.lists(st.integers(0, 3), max_size=14)


def contains(text, run):
    return any(text[start : start + len(run)] == run for start in range(len(text) + 1))


def longest_by_brute_force(text, training):
    return max(
        end - start
        for start in range(len(text) + 1)
        for end in range(start, len(text) + 1)
        if contains(training, text[start:end])
    )


def test_matches_worked_out_by_hand():
    automaton = SuffixAutomaton([[1, 2, 3, 4], [9, 9], [3, 4, 5], []])
    assert automaton.longest_matches([7, 2, 3, 4, 5, 7, 1, 2]) == [3, 0, 3, 0]
    assert automaton.longest_matches([]) == [0, 0, 0, 0]


def test_no_match_crosses_two_texts():
    assert SuffixAutomaton([[1, 2], [3, 4]]).longest_matches([1, 2, 3, 4]) == [2, 2]


@settings(max_examples=300)
@given(st.lists(texts, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=40))
def test_matches_equal_those_of_brute_force(samples, training):
    expected = [longest_by_brute_force(each, training) for each in samples]
    assert SuffixAutomaton(samples).longest_matches(training) == expected


def test_the_training_text_is_read_across_shards(tmp_path):
    tokens = write_tokens(tmp_path, {"train": [[[3, 4, 5]], [[6, 7, 1]]]})
    split = TokenSplit(tokens, "train")
    assert longest_matches([[4, 5, 6, 7], [8]], split) == [4, 0]


def test_excerpts_of_the_training_text_are_copies(evaluator):
    train = evaluator.splits["train"]
    pieces = excerpts(train, [20, 20, 12, 20])
    matches = longest_matches(pieces, train)
    assert matches == list(map(len, pieces))
    assert copied_share(pieces, matches) == 1


def test_a_text_is_a_copy_if_half_of_it_matches_in_one_run():
    assert copied_share([[1] * 20, [1] * 20, [1] * 19], [10, 9, 10]) == pytest.approx(2 / 3)
    texts = [[], [1], [1] * 7, [1] * 8]
    assert copied_share(texts, [0, 1, 7, 8]) == 1 / 4  # a word is not a copy
