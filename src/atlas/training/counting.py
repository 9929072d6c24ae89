"""Training of the bigram model: the pairs of the training text are counted."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from atlas.model.baselines import Bigram
from atlas.tokens.windows import NO_TARGET, EvaluationWindows
from atlas.training.checkpoint import Checkpoints, Progress
from atlas.training.validation import mean_loss

Counts = npt.NDArray[np.int64]


@dataclass
class Counting:
    """One run of counting.

    Attributes:
        model: whose table is made.
        data: windows of the training split.
        val: the windows that it is measured on.
        checkpoints: where the table is kept.
    """

    model: Bigram
    data: EvaluationWindows
    val: EvaluationWindows
    checkpoints: Checkpoints

    def run(self) -> Progress:
        """Counts every pair once.

        Returns:
            What was logged: a single step that reads all.
        """
        started = time.perf_counter()
        counts, tokens = self._pairs()
        table = log_probabilities(counts)
        with torch.no_grad():
            self.model.table.weight.copy_(torch.from_numpy(table))
        surprise = -sum(float(n @ row) for n, row in zip(counts, table, strict=True))
        seconds = time.perf_counter() - started
        self.checkpoints.save_best(self.model)
        train_loss = surprise / int(counts.sum())
        val_loss = mean_loss(self.model, self.val.all())
        return Progress(
            step=1,
            best_step=1,
            best_loss=val_loss,
            train_rows=[{"step": 1, "loss": train_loss, "lr": 0, "gradient_norm": 0}],
            val_rows=[{"step": 1, "loss": val_loss}],
            speed_rows=[{"step": 1, "tokens_per_second": round(tokens / seconds)}],
            tokens=tokens,
        )

    def _pairs(self) -> tuple[Counts, int]:
        """How often each token follows each, (V, V), and how many tokens were read."""
        size = self.model.config.vocab_size
        counts = np.zeros(size * size, np.int64)
        tokens = 0
        for batch in tqdm(self.data.all(), desc="count", unit="batch"):
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
