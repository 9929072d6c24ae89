"""The counted bigram model."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from atlas.model.make import make_model
from atlas.model.storage import load_weights
from atlas.tokens.split import TokenSplit
from atlas.tokens.windows import EvaluationWindows
from atlas.training.counting import count_pairs, log_probabilities
from atlas.training.safety.checkpoint import Checkpoints
from atlas.training.steps.loss import mean_loss
from tests.small import EOS, small_config, small_params, write_tokens


def test_the_smoothing_by_hand():
    counts = np.array([[2, 1, 0], [0, 0, 0], [0, 4, 0]])
    table = np.exp(log_probabilities(counts))
    anywhere = np.array([3, 6, 1]) / 10
    assert table[0] == pytest.approx((counts[0] + 2 * anywhere) / 5)
    assert table[1] == pytest.approx(anywhere)
    assert table[2] == pytest.approx((counts[2] + anywhere) / 5)


@given(arrays.arrays(np.int64, (5, 5), elements=st.integers(0, 1000)))
def test_every_row_is_a_distribution_without_zeros(counts):
    table = np.exp(log_probabilities(counts).astype(np.float64))
    assert table.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert (table > 0).all()


@pytest.fixture
def counting(tmp_path):
    def make(separator=None, windows="packed"):
        documents = [[3, 4, 3, 4, 3, 5, EOS], [3, 4, 6, EOS]]
        tokens = write_tokens(
            tmp_path / "tokens",
            {"train": [documents[:1], documents[1:]], "val": [documents]},
            vocab_size=7,
            windows=windows,
            separator=separator,
        )
        model = make_model(small_config(kind="bigram", vocab_size=7))
        splits = {split: TokenSplit(tokens, split) for split in ("train", "val")}
        params = small_params(**{"model.context_length": 8, "train.batch_size": 2})
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        progress, _ = count_pairs(model, splits, params, checkpoints, lambda: "a b")
        return model, progress, EvaluationWindows(splits["train"], 8, 2), checkpoints

    return make


def test_pairs_are_counted_across_windows_and_shards(counting):
    model, progress, data, _ = counting()
    pairs = {(EOS, 3): 2, (3, 4): 3, (4, 3): 2, (3, 5): 1, (5, EOS): 1, (4, 6): 1, (6, EOS): 1}
    expected = np.zeros((7, 7), np.int64)
    for (first, second), times in pairs.items():
        expected[first, second] = times
    assert np.array_equal(model.table.weight.detach().numpy(), log_probabilities(expected))
    loss = mean_loss(model, data.all())
    assert progress.train_rows[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert progress.best_loss == pytest.approx(loss, rel=1e-5)  # val is the same text
    assert progress.tokens == 11
    assert math.isfinite(progress.speed_rows[0]["tokens_per_second"])
    assert progress.samples == [(1, "a b")]


def test_of_questions_the_answers_alone_are_counted(counting):
    model, *_ = counting(separator=4, windows="padded")
    expected = np.zeros((7, 7), np.int64)
    for pair in ((4, 3), (3, 4), (4, 3), (3, 5), (5, EOS), (4, 6), (6, EOS)):
        expected[pair] += 1
    assert np.array_equal(model.table.weight.detach().numpy(), log_probabilities(expected))


def test_the_table_is_kept(counting):
    import safetensors.torch

    model, _, _, checkpoints = counting()
    again = make_model(model.config)
    load_weights(again, safetensors.torch.load_file(checkpoints.best))
    assert (again.table.weight == model.table.weight).all()
