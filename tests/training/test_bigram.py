"""The counted bigram model."""

import math

import numpy as np
import pytest

from atlas.model.loss import mean_loss
from atlas.model.weights import load_weights, make_model
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import EvaluationWindows
from atlas.training.checkpoint import Checkpoints
from atlas.training.distributed import DistributedContext
from atlas.training.trainer import Trainer
from tests.small import EOS, small_config, small_params, write_tokens
from tests.training.conftest import CPU


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
        context = DistributedContext(CPU)
        trainer = Trainer(model, params, splits, checkpoints, context, sample=lambda: "a b")
        trainer.live = tmp_path / "live"
        state = trainer.fit()
        return model, state, EvaluationWindows(splits["train"], 8, 2), checkpoints

    return make


def test_pairs_are_counted_across_windows_and_shards(counting):
    model, state, data, _ = counting()
    pairs = {(EOS, 3): 2, (3, 4): 3, (4, 3): 2, (3, 5): 1, (5, EOS): 1, (4, 6): 1, (6, EOS): 1}
    expected = np.zeros((7, 7), np.int64)
    for (first, second), times in pairs.items():
        expected[first, second] = times
    seen = expected > 0
    rows = expected.sum(axis=1, keepdims=True) + seen.sum(axis=1, keepdims=True)
    anywhere = (expected.sum(axis=0) + 1) / (expected.sum() + 7)
    kept = np.where(rows > 0, seen.sum(axis=1, keepdims=True), 1) * anywhere
    table = np.exp(model.table.weight.detach().numpy())
    assert table == pytest.approx((expected + kept) / np.maximum(rows, 1), rel=1e-5)
    loss = mean_loss(model, data.all())
    assert state.train_rows[0]["loss"] == pytest.approx(loss, rel=1e-5)
    assert state.best_loss == pytest.approx(loss, rel=1e-5)  # val is the same text
    assert state.tokens == 11
    assert math.isfinite(state.speed_rows[0]["tokens_per_second"])
    assert state.samples == [(1, "a b")]


def test_the_curves_have_the_columns_that_dvc_draws(counting, tmp_path):
    _, state, _, _ = counting()
    assert {"lr", "gradient_norm"} <= state.train_rows[0].keys()
    assert {"tokens_per_second", "flop_utilisation"} <= state.speed_rows[0].keys()
    assert {"accuracy", "train_accuracy"} <= set(state.tables()["val"])
    live = sorted(path.name for path in (tmp_path / "live").iterdir())
    assert live == ["train.csv", "train.json", "val.csv"]


def test_the_table_is_kept(counting):
    import safetensors.torch

    model, _, _, checkpoints = counting()
    again = make_model(model.config)
    load_weights(again, safetensors.torch.load_file(checkpoints.best))
    assert (again.table.weight == model.table.weight).all()
