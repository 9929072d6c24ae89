"""Training of the bigram model: the pairs of the training text are counted."""

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from atlas.cleaning.splits import Split
from atlas.model.baselines import Bigram
from atlas.model.storage import weights_of
from atlas.params import Params
from atlas.tokens.split import TokenSplit
from atlas.tokens.windows import NO_TARGET, EvaluationWindows
from atlas.training.safety.checkpoint import Checkpoints
from atlas.training.safety.progress import Progress
from atlas.training.steps.loss import mean_loss

Counts = npt.NDArray[np.int64]


def count_pairs(
    model: Bigram,
    splits: Mapping[Split, TokenSplit],
    params: Params,
    checkpoints: Checkpoints,
    sample: Callable[[], str] | None = None,
) -> tuple[Progress, dict[str, Tensor]]:
    """Makes the table of a bigram model from every pair of the training text.

    Returns:
        What was logged, a single step that reads all, and the weights, which are the best as well.
    """
    length = params.model.context_length
    at_once = params.train.batch_size // params.train.accumulation
    started = time.perf_counter()
    data = EvaluationWindows(splits["train"], length, at_once)
    counts, tokens = _count(data, model.config.vocab_size)
    table = log_probabilities(counts)
    with torch.no_grad():
        model.table.weight.copy_(torch.from_numpy(table))
    surprise = -sum(float(n @ row) for n, row in zip(counts, table, strict=True))
    seconds = time.perf_counter() - started
    checkpoints.keep_best(weights_of(model))
    checkpoints.settle()
    train_loss = surprise / int(counts.sum())
    val_loss = mean_loss(model, EvaluationWindows(splits["val"], length, at_once).all())
    progress = Progress(
        step=1,
        best_step=1,
        best_loss=val_loss,
        train_rows=[{"step": 1, "loss": train_loss, "lr": 0, "gradient_norm": 0}],
        val_rows=[{"step": 1, "loss": val_loss}],
        speed_rows=[{"step": 1, "tokens_per_second": round(tokens / seconds)}],
        samples=[(1, sample())] if sample is not None else [],
        tokens=tokens,
    )
    return progress, weights_of(model)


def _count(data: EvaluationWindows, size: int) -> tuple[Counts, int]:
    """How often each token follows each, (V, V), and how many tokens were read."""
    counts = np.zeros(size * size, np.int64)
    tokens = 0
    for batch in tqdm(data.all(), desc="count", unit="batch"):
        known = batch.targets != NO_TARGET
        pairs = batch.inputs[known] * size + batch.targets[known]
        found, times = np.unique(pairs, return_counts=True)
        counts[found] += times
        tokens += int(batch.mask.sum())
    return counts.reshape(size, size), tokens


def log_probabilities(counts: Counts) -> npt.NDArray[np.float32]:
    """The table of a bigram model, from how often each token follows each.

    Witten and Bell (1991, IEEE Transactions on Information Theory 37, 1085): of n tokens that
    followed one, t of them different, the share t / (n + t) is kept for what was not seen. It is
    divided by how often tokens occur at all, with one more of each, so that none is impossible.

        P(b | a) = (count(a, b) + t(a) P(b)) / (n(a) + t(a)),   P(b) = (count(b) + 1) / (N + V)

    Args:
        counts: of the second token after the first, (V, V).

    Returns:
        Natural logarithms of P(b | a), (V, V).
    """
    anywhere = (counts.sum(axis=0) + 1) / (counts.sum() + len(counts))  # (V,)
    table = np.empty(counts.shape, np.float32)
    for first, row in enumerate(counts):
        followers = np.count_nonzero(row)
        if followers:
            table[first] = np.log((row + followers * anywhere) / (row.sum() + followers))
        else:
            table[first] = np.log(anywhere)
    return table
