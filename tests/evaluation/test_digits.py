"""Whether the right digit is looked at, on attention that was built by hand."""

import numpy as np
import pytest
import torch

from atlas.evaluation.heads import POSITIONAL, digit_table, rollout

OPERATIONS = {"First": 20, "Second": 21, "Last": 22, "Max": 23}
EOS, EQUALS = 1, 30


def question(operation, *digits):
    return operation, [EOS, OPERATIONS[operation], *digits, EQUALS]


QUESTIONS = [
    question(operation, *range(10, 10 + digits)) for operation in OPERATIONS for digits in (2, 3, 5)
]


def looks(places):
    """Attention of one layer with a head for each operation; ``places`` tells where it looks."""

    def attention_of(_model, ids):
        length = ids.shape[1]
        weights = torch.full((1, 3, length, length), 0.1 / length)
        for head, place in enumerate(places):
            digit = place if place < 0 else 2 + place
            weights[0, head, -1, digit - 1 if place < 0 else digit] += 0.9
        return [weights.expand(len(ids), -1, -1, -1)]

    return attention_of


@pytest.fixture
def attention(monkeypatch):
    def set_to(places):
        monkeypatch.setattr("atlas.evaluation.heads.attention_of", looks(places))

    return set_to


def test_the_head_that_looks_at_the_right_digit_is_found(attention):
    attention([-1, 0, 1])
    table = digit_table(None, QUESTIONS, QUESTIONS).set_index("operation")
    assert table["head"].to_dict() == {"First": 2, "Second": 3, "Last": 1}
    assert (table["found"] == 1).all()
    assert (table["weight"] > 0.9).all()
    assert (table["others"] < 0.1).all()
    assert (table["questions"] == 3).all()


def test_heads_that_look_elsewhere_are_told(attention):
    attention([0, 0, 0])
    table = digit_table(None, QUESTIONS, QUESTIONS).set_index("operation")
    assert table["found"].to_dict() == {"First": 1, "Second": 0, "Last": 0}
    assert table["flow"].to_dict() == {"First": 1, "Second": 0, "Last": 0}


def test_where_nothing_reaches_a_digit_nothing_flows(monkeypatch):
    def itself(_model, ids):
        return [torch.eye(ids.shape[1]).expand(len(ids), 3, -1, -1)]

    monkeypatch.setattr("atlas.evaluation.heads.attention_of", itself)
    table = digit_table(None, QUESTIONS, QUESTIONS)
    assert (table[["weight", "found", "flow"]] == 0).all().all()


def test_other_questions_judge_than_those_that_choose(attention):
    attention([-1, 0, 1])
    table = digit_table(None, QUESTIONS[:3], QUESTIONS)
    assert table["operation"].tolist() == ["First"]
    assert digit_table(None, [], QUESTIONS).empty
    assert set(POSITIONAL) < set(OPERATIONS)


def test_rollout_multiplies_through_the_layers():
    """Token 2 looks at 1, and 1 had looked at 0: half of a half of a half comes from 0."""
    first, second = np.eye(3)[None].copy(), np.eye(3)[None].copy()
    first[0, 1] = [1, 0, 0]
    second[0, 2] = [0, 1, 0]
    reached = rollout([first, second])
    assert reached[2] == pytest.approx([0.25, 0.25, 0.5])
    assert reached.sum(axis=1) == pytest.approx([1, 1, 1])
