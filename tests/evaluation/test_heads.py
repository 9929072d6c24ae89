"""Scores of attention heads, on attention built by hand."""

import numpy as np
import pytest
import torch

from atlas.evaluation.interpretability import (
    KEY_KINDS,
    POSITIONAL,
    attention_weights,
    digit_table,
    head_scores,
    head_table,
    key_masks,
    repeated_sequence,
    rollout,
)
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from tests.small import small_config

IDS = torch.tensor([[5, 6, 7, 5, 6, 7]])


def attending(to):
    """Attention (1, 1, T, T) that gives all weight of each query to one key."""
    weights = torch.zeros(1, 1, len(to), len(to))
    for query, key in enumerate(to):
        weights[0, 0, query, key] = 1
    return weights


HEADS = {
    "previous": attending([0, 0, 1, 2, 3, 4]),
    "first": attending([0, 0, 0, 0, 0, 0]),
    "itself": attending([0, 1, 2, 3, 4, 5]),
    "same": attending([0, 1, 2, 0, 1, 2]),
    "induction": attending([0, 1, 2, 1, 2, 3]),
}


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_head_with_one_role_has_a_high_score_for_it_alone(kind):
    scores = {name: head_scores(HEADS[kind], key_masks(IDS)[name]).item() for name in KEY_KINDS}
    assert scores.pop(kind) == 1
    assert max(scores.values()) < 0.5  # some keys coincide at the first tokens


def test_scores_average_over_the_queries_that_have_such_a_key():
    uniform = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    weights = uniform.expand(1, 1, 6, 6)
    assert head_scores(weights, key_masks(IDS)["previous"]).item() == pytest.approx(
        sum(1 / n for n in range(2, 7)) / 5
    )
    assert head_scores(weights, key_masks(IDS)["same"]).item() == pytest.approx(
        (1 / 4 + 1 / 5 + 1 / 6) / 3
    )
    assert head_scores(weights, key_masks(IDS)["induction"]).item() == pytest.approx(
        (1 / 4 + 1 / 5 + 1 / 6) / 3
    )
    assert head_scores(weights, torch.zeros(1, 6, 6)).item() == 0


def test_each_head_has_its_own_score():
    both = torch.cat([HEADS["first"], HEADS["previous"]], dim=1)
    assert head_scores(both, key_masks(IDS)["first"]).tolist() == pytest.approx([1, 0.2])


def test_attention_weights_are_causal_and_sum_to_one():
    model = Decoder(small_config(dropout=0.5)).train()
    initialize(model, 0)
    found = attention_weights(model, IDS)
    assert [tuple(each.shape) for each in found] == [(1, 2, 6, 6)] * 2
    assert all(torch.allclose(each.sum(-1), torch.ones(1, 2, 6)) for each in found)
    assert all((each.triu(1) == 0).all() for each in found)
    assert torch.equal(found[0], attention_weights(model, IDS)[0])  # without dropout
    assert model.training


def test_a_random_sequence_is_repeated():
    rows = repeated_sequence(torch.tensor([3, 5, 5, 9]), 32, seed=1)
    half = rows.shape[1] // 2
    assert torch.equal(rows[:, :half], rows[:, half:])
    assert set(rows.flatten().tolist()) == {3, 5, 9}
    assert torch.equal(rows, repeated_sequence(torch.tensor([9, 5, 3]), 32, seed=1))
    assert repeated_sequence(torch.tensor([3]), 2, seed=1).shape == (8, 2)


def test_the_table_has_one_row_per_head(monkeypatch):
    model = Decoder(small_config(n_head=4, n_kv_head=2))
    initialize(model, 0)
    table = head_table(model, [torch.arange(3, 20), torch.arange(5, 9)], seed=1)
    assert table[["layer", "head"]].to_numpy().tolist() == [
        [layer, head] for layer in (1, 2) for head in (1, 2, 3, 4)
    ]
    assert ((table[list(KEY_KINDS)] >= 0) & (table[list(KEY_KINDS)] <= 1)).all().all()

    def only_first(_model, ids):
        weights = torch.zeros(len(ids), 4, ids.shape[1], ids.shape[1])
        weights[:, :, :, 0] = 1
        return [weights, weights]

    monkeypatch.setattr("atlas.evaluation.interpretability.attention_weights", only_first)
    table = head_table(model, [torch.arange(3, 20)], seed=1)
    assert set(table["role"]) == {"first"}
    assert table["first"].tolist() == pytest.approx([1.0] * 8)
    with_short_window = head_table(model, [torch.arange(3, 20), torch.tensor([7])], seed=1)
    assert with_short_window["first"].tolist() == pytest.approx(
        [1.0] * 8
    )  # a single token has no keys


OPERATIONS = {"First": 20, "Second": 21, "Last": 22, "Max": 23}
EOS, EQUALS = 1, 30


def question(operation, *digits):
    return operation, [EOS, OPERATIONS[operation], *digits, EQUALS]


QUESTIONS = [
    question(operation, *range(10, 10 + digits)) for operation in OPERATIONS for digits in (2, 3, 5)
]


def one_head_per_position(positions):
    """One layer whose heads each attend to the digit at one of the positions."""

    def attention_weights(_model, ids):
        length = ids.shape[1]
        weights = torch.full((1, 3, length, length), 0.1 / length)
        for head, position in enumerate(positions):
            key = position - 1 if position < 0 else 2 + position
            weights[0, head, -1, key] += 0.9
        return [weights.expand(len(ids), -1, -1, -1)]

    return attention_weights


@pytest.fixture
def attention(monkeypatch):
    def set_to(positions):
        fake = one_head_per_position(positions)
        monkeypatch.setattr("atlas.evaluation.interpretability.attention_weights", fake)

    return set_to


def test_the_head_that_attends_to_the_right_digit_is_found(attention):
    attention([-1, 0, 1])
    table = digit_table(None, QUESTIONS, QUESTIONS).set_index("operation")
    assert table["head"].to_dict() == {"First": 2, "Second": 3, "Last": 1}
    assert (table["found"] == 1).all()
    assert (table["weight"] > 0.9).all()
    assert (table["others"] < 0.1).all()
    assert (table["questions"] == 3).all()


def test_heads_that_attend_elsewhere_are_not_found(attention):
    attention([0, 0, 0])
    table = digit_table(None, QUESTIONS, QUESTIONS).set_index("operation")
    assert table["found"].to_dict() == {"First": 1, "Second": 0, "Last": 0}
    assert table["flow"].to_dict() == {"First": 1, "Second": 0, "Last": 0}


def test_without_attention_to_digits_nothing_flows(monkeypatch):
    def own_token(_model, ids):
        return [torch.eye(ids.shape[1]).expand(len(ids), 3, -1, -1)]

    monkeypatch.setattr("atlas.evaluation.interpretability.attention_weights", own_token)
    table = digit_table(None, QUESTIONS, QUESTIONS)
    assert (table[["weight", "found", "flow"]] == 0).all().all()


def test_one_set_of_questions_selects_the_head_and_another_tests_it(attention):
    attention([-1, 0, 1])
    table = digit_table(None, QUESTIONS[:3], QUESTIONS)
    assert table["operation"].tolist() == ["First"]
    assert digit_table(None, [], QUESTIONS).empty
    assert set(POSITIONAL) < set(OPERATIONS)


def test_rollout_multiplies_the_layers():
    """Token 2 attends to 1, which attended to 0: half of a half comes from 0."""
    first, second = np.eye(3)[None].copy(), np.eye(3)[None].copy()
    first[0, 1] = [1, 0, 0]
    second[0, 2] = [0, 1, 0]
    reached = rollout([first, second])
    assert reached[2] == pytest.approx([0.25, 0.25, 0.5])
    assert reached.sum(axis=1) == pytest.approx([1, 1, 1])
