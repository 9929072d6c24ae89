"""Fit the bigram model by counting the pairs of the training text."""

import time
from collections.abc import Callable, Mapping

import torch

from atlas.cleaning.documents import Split
from atlas.model.baselines import Bigram
from atlas.model.loss import tally
from atlas.model.storage import weights_of
from atlas.params.schema import Params
from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import EvaluationWindows
from atlas.training.checkpoint import Checkpoints
from atlas.training.metrics import TrainState, val_row
from atlas.training.train_step import total_norm


def fit_bigram(
    model: Bigram,
    splits: Mapping[Split, TokenSplit],
    params: Params,
    checkpoints: Checkpoints,
    sample: Callable[[], str] | None = None,
) -> TrainState:
    """Fill the table of a bigram model from all pairs of the training text.

    Returns the log of one step that reads the whole text.
    """
    length = params.model.context_length
    micro_batch = params.train.batch_size // params.train.grad_accum_steps
    started = time.perf_counter()
    pairs = BigramCounts.count(splits["train"], length)
    with torch.no_grad():
        model.table.weight.copy_(torch.from_numpy(pairs.bigram_table()))
    losses = pairs.bigram_losses(pairs.first, pairs.second)
    seconds = time.perf_counter() - started
    checkpoints.keep_best(weights_of(model))
    checkpoints.flush()
    train_loss = float(pairs.counts @ losses) / int(pairs.counts.sum())
    val = tally(model, EvaluationWindows(splits["val"], length, micro_batch).all())
    data = EvaluationWindows(splits["train"], length, micro_batch)
    windows = params.train.eval_train_windows
    train = tally(model, data.spread(windows)) if windows else None
    return TrainState(
        step=1,
        best_step=1,
        best_loss=val.mean,
        train_rows=[{"step": 1, "loss": train_loss, "lr": 0, "gradient_norm": 0}],
        val_rows=[val_row(1, val, train, total_norm(model.parameters()).item())],
        speed_rows=[{"step": 1, "tokens_per_second": round(pairs.read / seconds)}],
        samples=[(1, sample())] if sample is not None else [],
        tokens=pairs.read,
    )
