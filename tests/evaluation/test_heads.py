"""What heads do, on attention that was built by hand."""

import pytest
import torch

from atlas.evaluation.heads import (
    KINDS,
    attention_of,
    head_table,
    repeated,
    score_of,
)
from atlas.model.decoder import Decoder
from atlas.model.initialize import initialise
from tests.small import small_config

IDS = torch.tensor([[5, 6, 7, 5, 6, 7]])


def looking(at):
    """Attention (1, 1, T, T) in which each query gives all to one key."""
    weights = torch.zeros(1, 1, len(at), len(at))
    for query, key in enumerate(at):
        weights[0, 0, query, key] = 1
    return weights


HEADS = {
    "previous": looking([0, 0, 1, 2, 3, 4]),
    "first": looking([0, 0, 0, 0, 0, 0]),
    "itself": looking([0, 1, 2, 3, 4, 5]),
    "same": looking([0, 1, 2, 0, 1, 2]),
    "induction": looking([0, 1, 2, 1, 2, 3]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_does_one_thing_has_its_score_alone(kind):
    scores = {name: score_of(HEADS[kind], KINDS[name](IDS)).item() for name in KINDS}
    assert scores.pop(kind) == 1
    assert max(scores.values()) < 0.5  # at the first tokens some keys are the same


def test_scores_are_means_over_the_queries_that_have_such_a_key():
    uniform = torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]
    weights = uniform.expand(1, 1, 6, 6)
    assert score_of(weights, KINDS["previous"](IDS)).item() == pytest.approx(
        sum(1 / n for n in range(2, 7)) / 5
    )
    assert score_of(weights, KINDS["same"](IDS)).item() == pytest.approx(
        (1 / 4 + 1 / 5 + 1 / 6) / 3
    )
    assert score_of(weights, KINDS["induction"](IDS)).item() == pytest.approx(
        (1 / 4 + 1 / 5 + 1 / 6) / 3
    )
    assert score_of(weights, torch.zeros(1, 6, 6)).item() == 0


def test_heads_are_told_apart():
    both = torch.cat([HEADS["first"], HEADS["previous"]], dim=1)
    assert score_of(both, KINDS["first"](IDS)).tolist() == pytest.approx([1, 0.2])


def test_weights_are_those_of_the_model_and_add_up_to_one():
    model = Decoder(small_config(dropout=0.5)).train()
    initialise(model, 0)
    found = attention_of(model, IDS)
    assert [tuple(each.shape) for each in found] == [(1, 2, 6, 6)] * 2
    assert all(torch.allclose(each.sum(-1), torch.ones(1, 2, 6)) for each in found)
    assert all((each.triu(1) == 0).all() for each in found)
    assert torch.equal(found[0], attention_of(model, IDS)[0])  # without dropout
    assert model.training


def test_random_tokens_come_twice():
    rows = repeated(torch.tensor([3, 5, 5, 9]), 32, seed=1)
    half = rows.shape[1] // 2
    assert torch.equal(rows[:, :half], rows[:, half:])
    assert set(rows.flatten().tolist()) == {3, 5, 9}
    assert torch.equal(rows, repeated(torch.tensor([9, 5, 3]), 32, seed=1))
    assert repeated(torch.tensor([3]), 2, seed=1).shape == (8, 2)


def test_a_table_has_a_row_of_each_head(monkeypatch):
    model = Decoder(small_config(n_head=4, n_kv_head=2))
    initialise(model, 0)
    table = head_table(model, [torch.arange(3, 20), torch.arange(5, 9)], seed=1)
    assert table[["layer", "head"]].to_numpy().tolist() == [
        [layer, head] for layer in (1, 2) for head in (1, 2, 3, 4)
    ]
    assert ((table[list(KINDS)] >= 0) & (table[list(KINDS)] <= 1)).all().all()

    def only_first(_model, ids):
        weights = torch.zeros(len(ids), 4, ids.shape[1], ids.shape[1])
        weights[:, :, :, 0] = 1
        return [weights, weights]

    monkeypatch.setattr("atlas.evaluation.heads.attention_of", only_first)
    table = head_table(model, [torch.arange(3, 20)], seed=1)
    assert set(table["role"]) == {"first"}
    assert table["first"].tolist() == pytest.approx([1.0] * 8)
    with_a_rest = head_table(model, [torch.arange(3, 20), torch.tensor([7])], seed=1)
    assert with_a_rest["first"].tolist() == pytest.approx([1.0] * 8)  # a token alone asks nobody
