"""A model that has learned where First, Second and Last look."""

import pandas as pd
import pytest

from atlas.evaluation.heads import POSITIONAL
from atlas.evaluation.interpretability import look_inside
from tests.evaluation.arithmetic import learned

ROWS = pd.DataFrame({"step": [1], "loss": [1.0], "accuracy": [0.5], "weight_norm": [1.0]})


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return learned(tmp_path_factory.mktemp("learned"), list(POSITIONAL), examples=900, steps=250)


def test_it_answers_questions_that_it_has_not_seen(subject):
    scores = subject.scores("test")
    assert subject.measure("test", scores)["accuracy"] > 0.95


def test_at_the_answer_a_head_looks_at_the_digit_that_is_asked_for(subject, tmp_path):
    found = look_inside(subject, ROWS, tmp_path, tmp_path)
    table = pd.read_csv(tmp_path / "digits.csv").set_index("operation")
    assert set(table.index) == set(POSITIONAL)
    assert (table["found"] >= 0.9).all(), table
    assert (table["weight"] > table["others"]).all(), table
    assert found["attention_first_found"] == pytest.approx(table["found"]["First"])
    names = {path.name for path in tmp_path.glob("*.png")}
    assert {"attention-1.png", "attention-3.png", "heads.png", "dynamics.png"} <= names


def test_where_nobody_asks_for_a_position_there_is_no_table(tmp_path):
    other = learned(tmp_path / "learned", ["Max", "Min"], examples=60, steps=6)
    assert look_inside(other, ROWS, tmp_path, tmp_path) == {}
    assert (tmp_path / "heads.csv").is_file()
    assert not (tmp_path / "digits.csv").exists()
