"""What of a text stands in another word for word, and what repeats itself."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.evaluation.memorisation import Runs, copied, longest_matches
from atlas.evaluation.samples import distinct, repetition
from atlas.tokens.shards import TokenSplit
from tests.small import write_tokens

texts = st.lists(st.integers(0, 3), max_size=14)


def has(text, run):
    return any(text[start : start + len(run)] == run for start in range(len(text) + 1))


def longest_by_hand(text, training):
    return max(
        end - start
        for start in range(len(text) + 1)
        for end in range(start, len(text) + 1)
        if has(training, text[start:end])
    )


def test_by_hand():
    runs = Runs([[1, 2, 3, 4], [9, 9], [3, 4, 5], []])
    assert runs.longest_in([7, 2, 3, 4, 5, 7, 1, 2]) == [3, 0, 3, 0]
    assert runs.longest_in([]) == [0, 0, 0, 0]


def test_no_run_goes_on_from_one_text_to_the_next():
    assert Runs([[1, 2], [3, 4]]).longest_in([1, 2, 3, 4]) == [2, 2]


@settings(max_examples=300)
@given(st.lists(texts, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=40))
def test_the_longest_run_is_that_of_trying_all(some, training):
    assert Runs(some).longest_in(training) == [longest_by_hand(each, training) for each in some]


def test_the_training_text_is_read_over_shards(tmp_path):
    tokens = write_tokens(tmp_path, {"train": [[[3, 4, 5]], [[6, 7, 1]]]})
    split = TokenSplit(tokens, "train")
    assert longest_matches([[4, 5, 6, 7], [8]], split) == [4, 0]


def test_a_text_is_a_copy_if_half_of_it_stands_there_in_one_run():
    assert copied([[1] * 20, [1] * 20, [1] * 19], [10, 9, 10]) == pytest.approx(2 / 3)
    assert copied([[], [1], [1] * 7, [1] * 8], [0, 1, 7, 8]) == 1 / 4  # a word is no copy


def test_distinct_runs():
    assert distinct([[1, 2, 1, 2]], 1) == 0.5
    assert distinct([[1, 2, 1, 2]], 2) == pytest.approx(2 / 3)
    assert distinct([[1, 2], [1, 2]], 2) == 0.5
    assert distinct([[1]], 2) == 1


def test_repetition_is_within_a_text():
    assert repetition([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]) == 0
    assert repetition([[7] * 8]) == pytest.approx(0.8)  # five runs of four, one of them different
    assert repetition([[1]]) == 0
