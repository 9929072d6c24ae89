"""Prompts, samples and excerpts; how much texts repeat themselves and the training text."""

from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.evaluation.samples import (
    SuffixAutomaton,
    choose_prompts,
    copied_share,
    distinct,
    excerpts,
    format_page,
    longest_matches,
    repetition,
    sample_continuations,
    write_samples,
)
from atlas.model.weights import initialize, make_model
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import document_prompts
from tests.evaluation.evaluators import EVALUATE
from tests.small import small_config, write_tokens


def test_samples_are_compared_with_the_training_text_and_real_text(evaluator, tmp_path):
    metrics = write_samples(evaluator, tmp_path / "samples.md", tmp_path)
    table = pd.read_csv(tmp_path / "samples.csv", keep_default_na=False)
    assert len(table) == 5
    assert metrics["samples_longest_match"] == table["match"].max()
    assert metrics["samples_mean_match"] == pytest.approx(table["match"].mean())
    assert metrics["samples_copied"] == 0
    assert 0 < metrics["real_text_distinct_1"] < metrics["samples_distinct_1"]
    page = (tmp_path / "samples.md").read_text()
    assert "\n    the lamp" in page
    assert "Without a prompt" in page
    again = write_samples(evaluator, tmp_path / "again.md", tmp_path)
    assert (again, (tmp_path / "again.md").read_text()) == (metrics, page)


def test_samples_before_fine_tuning_have_the_same_prompts(evaluator, base_folder, tmp_path):
    base = evaluator.of_base(base_folder)
    write_samples(evaluator, tmp_path / "samples.md", tmp_path, base)
    write_samples(base, tmp_path / "base.md", tmp_path)
    note = "\n\nThe same prompts before fine-tuning:\n\n"
    before = (tmp_path / "samples.md").read_text().partition(note)[2]
    expected = (tmp_path / "base.md").read_text().partition("\n\n")[2]
    assert before.startswith("    the lamp")
    assert before.partition("\n\nWithout")[0] == expected.partition("\n\nWithout")[0]


def test_each_sample_has_the_next_seed_across_batches(evaluator):
    later = EVALUATE.model_copy(update={"seed": 3})
    samples = sample_continuations(evaluator.model, [[]] * 70, EVALUATE)
    assert samples[2:12] == sample_continuations(evaluator.model, [[]] * 10, later)
    assert len(samples) == 70


def test_samples_begin_with_their_prompts(evaluator):
    prompts = choose_prompts(["the lamp", ""], evaluator.tokenizer, evaluator.splits["val"])
    assert prompts[1] == []
    page = format_page(prompts, [], evaluator.tokenizer, EVALUATE)
    assert "\n    the lamp" in page
    assert "temperature 0.8, top-k 50, top-p 0.95, seeds from 1 on" in page


def test_each_line_of_a_sample_is_code_in_markdown():
    """Also behind a carriage return, which ends a line of Markdown."""
    pieces = SimpleNamespace(decode=lambda ids: ids[0])
    page = format_page([["a\r<img src=x>\r\n<script>\n\n# b"]], [], pieces, EVALUATE)
    lines = page.split("\n")[2:-1]
    assert lines == ["    a␍<img src=x>", "    <script>", "    ", "    # b"]


def test_without_prompts_samples_begin_like_val_documents(tmp_path, evaluator):
    val = evaluator.splits["val"]
    assert choose_prompts([], evaluator.tokenizer, val)[0] == val.read(0, 8).tolist()
    documents = [[n, n, 9, 6, 1] for n in range(10, 30)]
    tokens = TokenSplit(write_tokens(tmp_path, {"val": [documents]}, 400, "padded", 9), "val")
    prompts = document_prompts(tokens, 6)
    assert (prompts[0], prompts[-1]) == ([10, 10, 9], [29, 29, 9])
    assert len(prompts) == 6
    assert all(len(ids) == 3 for ids in prompts)


def test_a_prompt_of_a_short_document_does_not_contain_its_end(tmp_path):
    tokens = write_tokens(tmp_path, {"val": [[[5, 6, 1], [7, 1], [*range(10, 30), 1], [1]]]})
    assert document_prompts(TokenSplit(tokens, "val"), 4) == [[5, 6], [7], [*range(10, 18)], [1]]


def test_an_encoder_decoder_needs_a_question():
    model = make_model(small_config(kind="encoder_decoder", separator=9)).eval()
    initialize(model, 0)
    with pytest.raises(AtlasError, match="question"):
        sample_continuations(model, [[5, 6]], EVALUATE)


def test_excerpts_have_the_given_lengths_and_do_not_overlap(tmp_path):
    documents = [[*range(10, 17), 1], [*range(20, 23), 1], [*range(30, 39), 1]]
    val = TokenSplit(write_tokens(tmp_path, {"val": [documents]}), "val")
    pieces = excerpts(val, [5, 3, 4, 5, 5, 5, 5])
    assert pieces == [[10, 11, 12, 13, 14], [15, 16, 1], [20, 21, 22, 1], [30, 31, 32, 33, 34],
                      [35, 36, 37, 38, 1]]  # fmt: skip
    assert excerpts(val, [5, 5]) == [[10, 11, 12, 13, 14], [35, 36, 37, 38, 1]]
    assert excerpts(val, []) == excerpts(val, [0, 0]) == []


def test_distinct_ngrams():
    assert distinct([[1, 2, 1, 2]], 1) == 0.5
    assert distinct([[1, 2, 1, 2]], 2) == pytest.approx(2 / 3)
    assert distinct([[1, 2], [1, 2]], 2) == 0.5
    assert distinct([[1]], 2) == 1


def test_repetition_is_within_a_text():
    assert repetition([[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]) == 0
    assert repetition([[7] * 8]) == pytest.approx(0.8)  # five 4-grams, one of them different
    assert repetition([[1]]) == 0


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
