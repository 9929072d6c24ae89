"""Tables of a model that answers questions of the arithmetic language."""

import pandas as pd
import pytest

from atlas.corpora.arithmetic import OPERATIONS, solve
from atlas.evaluation.questions import (
    EDGE_DIGITS,
    edge_case_table,
    is_arithmetic,
    write_question_tables,
)
from atlas.evaluation.samples import write_samples
from atlas.evaluation.tables import write_score_tables
from tests.evaluation.evaluators import train_arithmetic


@pytest.fixture(scope="module")
def evaluator(tmp_path_factory):
    """An evaluator of a model that has barely learned the operations."""
    folder = tmp_path_factory.mktemp("trained")
    return train_arithmetic(folder, list(OPERATIONS), examples=360, steps=10)


@pytest.fixture(scope="module")
def results(evaluator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    """Metrics, tables by name, and the page of samples."""
    scores = evaluator.score(evaluator.table_split)
    metrics = evaluator.metrics(evaluator.table_split, scores)
    write_score_tables(evaluator, scores, folder)
    metrics |= write_question_tables(evaluator, scores, folder)
    metrics |= write_samples(evaluator, folder / "samples.md", folder)
    texts = {"expected": str, "answered": str}
    tables = {path.stem: pd.read_csv(path, dtype=texts) for path in folder.glob("*.csv")}
    return metrics, tables, (folder / "samples.md").read_text()


def test_the_tables_describe_test_with_an_accuracy_per_operation(evaluator, results):
    metrics, tables, _ = results
    assert evaluator.table_split == "test"
    assert set(tables["sources"]["source"]) == set(OPERATIONS)
    assert metrics["accuracy"] == pytest.approx(tables["documents"]["accuracy"].mean())
    assert 0 < metrics["accuracy"] < 0.9
    assert "bits_per_byte" not in metrics
    assert "sliding_loss" not in metrics


def test_failures_are_the_wrong_answers_and_show_the_answer_given(results):
    _, tables, _ = results
    failures = tables["failures"].fillna({"answered": ""})
    assert len(failures) == (tables["documents"]["accuracy"] == 0).sum()
    for row in failures.itertuples():
        assert solve(row.question.strip()) == row.expected
        assert row.answered != row.expected
    assert failures["probability"].is_monotonic_increasing
    assert (failures["probability"] < 0.5).all()  # another answer was more likely


def test_the_confusion_table_counts_digits(results):
    _, tables, _ = results
    confusion = tables["confusion"]
    assert set(confusion["actual"].astype(str)) <= set("0123456789")
    assert confusion["count"].sum() == len(tables["documents"])
    wrong = confusion.query("actual != predicted")["count"].sum()
    assert wrong <= len(tables["failures"])


def test_edge_cases_are_checked_against_the_language_itself(results):
    _, tables, _ = results
    cases = tables["edge_cases"]
    assert len(cases) == len(EDGE_DIGITS) * len(OPERATIONS)
    for row in cases.fillna({"answered": ""}).itertuples():
        assert row.expected == solve(row.question)
        assert row.right == (row.answered == row.expected)
    assert cases["seen"].any()
    assert not cases["seen"].all()


def test_other_languages_have_no_edge_cases(evaluator):
    separator = evaluator.model.config.separator
    assert is_arithmetic(evaluator.tokenizer, separator, ["Max", "Min"])
    assert not is_arithmetic(evaluator.tokenizer, separator, ["add"])
    assert not is_arithmetic(evaluator.tokenizer, None, ["Max"])
    assert not is_arithmetic(evaluator.tokenizer, evaluator.tokenizer.eos, ["Max"])
    train = evaluator.questions("train")
    cases = edge_case_table(evaluator, ["Max", "Add"])
    assert set(cases["source"]) == {"Max", "Add"}
    known = {tuple(ids) for ids in train.prompts}
    seen = [tuple(evaluator.tokenizer.encode(each)) in known for each in cases["question"]]
    assert seen == cases["seen"].tolist()


def test_samples_answer_val_questions_without_free_samples(results):
    metrics, tables, page = results
    assert page.count(" = ") == 6
    assert "Without a prompt" not in page
    assert "samples" not in tables
    assert "samples_copied" not in metrics
