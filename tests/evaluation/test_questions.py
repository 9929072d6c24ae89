"""Wrong answers, edge cases, and all that evaluation writes of a task."""

import pandas as pd
import pytest

from atlas.corpora.arithmetic import OPERATIONS, solve
from atlas.evaluation.questions import EDGE_DIGITS, Questions, edge_cases, is_arithmetic
from atlas.evaluation.tables import write_question_tables, write_samples, write_split_tables
from atlas.tokens.shards import TokenSplit
from tests.evaluation.arithmetic import learned
from tests.small import EOS, write_tokens


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A model of all operations that has hardly learned any."""
    folder = tmp_path_factory.mktemp("learned")
    return learned(folder, list(OPERATIONS), examples=360, steps=10)


@pytest.fixture(scope="module")
def tables(subject, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    scores = subject.scores(subject.judge)
    measured = subject.measure(subject.judge, scores)
    write_split_tables(subject, scores, folder)
    measured |= write_question_tables(subject, scores, folder)
    measured |= write_samples(subject, folder / "samples.md", folder)
    texts = {"expected": str, "answered": str}
    found = {path.stem: pd.read_csv(path, dtype=texts) for path in folder.glob("*.csv")}
    return measured, found, (folder / "samples.md").read_text()


def test_documents_are_cut_behind_the_first_separator(tmp_path):
    documents = [[5, 9, 6, EOS], [7, 7, 9, 8, 9, EOS], [4, EOS]]
    tokens = write_tokens(tmp_path, {"val": [documents]}, windows="padded", separator=9)
    found = Questions.of(TokenSplit(tokens, "val"))
    assert found.prompts == [[5, 9], [7, 7, 9], [4, EOS]]
    assert found.answers == [[6], [8, 9], []]


def test_tests_judge_and_every_operation_has_its_accuracy(subject, tables):
    measured, found, _ = tables
    assert subject.judge == "test"
    assert set(found["sources"]["source"]) == set(OPERATIONS)
    by_document = found["documents"]["accuracy"]
    assert measured["accuracy"] == pytest.approx(by_document.mean())
    assert 0 < measured["accuracy"] < 0.9
    assert "bits_per_byte" not in measured
    assert "sliding_loss" not in measured


def test_failures_are_the_wrong_answers_with_what_was_answered(tables):
    _, found, _ = tables
    failures = found["failures"].fillna({"answered": ""})
    assert len(failures) == (found["documents"]["accuracy"] == 0).sum()
    for row in failures.itertuples():
        assert solve(row.question.strip()) == row.expected
        assert row.answered != row.expected
    assert found["failures"]["probability"].is_monotonic_increasing
    assert (found["failures"]["probability"] < 0.5).all()  # another one was likelier


def test_the_confusion_is_of_digits(tables):
    _, found, _ = tables
    assert set(found["confusion"]["actual"].astype(str)) <= set("0123456789")
    asked = found["confusion"]["count"].sum()
    assert asked == len(found["documents"])
    wrong = found["confusion"].query("actual != predicted")["count"].sum()
    assert wrong <= len(found["failures"])


def test_edge_cases_are_judged_by_the_language_itself(subject, tables):
    _, found, _ = tables
    cases = found["edge_cases"]
    assert len(cases) == len(EDGE_DIGITS) * len(OPERATIONS)
    for row in cases.fillna({"answered": ""}).itertuples():
        assert row.expected == solve(row.question)
        assert row.right == (row.answered == row.expected)
    assert cases["seen"].any()
    assert not cases["seen"].all()


def test_of_another_language_there_are_no_edge_cases(subject):
    separator = subject.model.config.separator
    assert is_arithmetic(subject.tokenizer, separator, ["Max", "Min"])
    assert not is_arithmetic(subject.tokenizer, separator, ["add"])
    assert not is_arithmetic(subject.tokenizer, None, ["Max"])
    assert not is_arithmetic(subject.tokenizer, subject.tokenizer.eos, ["Max"])
    train = subject.questions_of("train")
    cases = edge_cases(subject.model, subject.tokenizer, ["Max", "Add"], train, train)
    assert set(cases["source"]) == {"Max", "Add"}
    known = {tuple(ids) for ids in train.prompts}
    seen = [tuple(subject.tokenizer.encode(each)) in known for each in cases["question"]]
    assert seen == cases["seen"].tolist()


def test_samples_answer_questions_of_val_and_none_is_written_from_nothing(tables):
    measured, found, page = tables
    assert page.count(" = ") == 6
    assert "Written from nothing" not in page
    assert "samples" not in found
    assert "samples_copied" not in measured
