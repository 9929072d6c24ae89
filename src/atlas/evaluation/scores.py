"""Score a split token by token, and summarize the scores.

Legend: N predicted tokens, D documents, V vocabulary.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from atlas.model.language_model import LanguageModel
from atlas.model.loss import perplexity
from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import NO_TARGET, TokenBatch

CALIBRATION_BINS = 10

Metrics = dict[str, float | int]


@dataclass(frozen=True)
class Scores:
    """The model's prediction of each token of a split, in the order of the text.

    Attributes:
        previous: the token before the target, (N,).
        targets: the actual token, (N,).
        predicted: the most likely token, (N,).
        losses: negative log probability of the target in nats, (N,).
        confidences: probability of the most likely token, (N,).
    """

    previous: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    predicted: npt.NDArray[np.int32]
    losses: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]

    @property
    def loss(self) -> float:
        """Mean loss in nats per token."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def total_loss(self) -> float:
        """Sum of the losses in nats."""
        return float(self.losses.sum(dtype=np.float64))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """True where the most likely token is the target, (N,)."""
        return np.equal(self.predicted, self.targets)

    def __len__(self) -> int:
        return len(self.targets)


@torch.no_grad()
def score_batches(model: LanguageModel, batches: Iterable[TokenBatch[Any]]) -> Scores:
    """Score every target in the batches; the model keeps its train or eval mode."""
    with model.evaluating():
        parts = [_score_batch(model, batch) for batch in batches]
    previous, targets, predicted, losses, log_confidences = (
        torch.cat(each).numpy() for each in zip(*parts, strict=True)
    )
    return Scores(previous, targets, predicted, losses, np.exp(log_confidences))


def _score_batch(model: LanguageModel, batch: TokenBatch[Any]) -> tuple[Tensor, ...]:
    """Previous tokens, targets, predictions, losses and log confidences, (N,) each."""
    inputs, targets = (torch.from_numpy(array).to(model.device) for array in batch[:2])
    mask = targets != NO_TARGET
    logits = model(inputs)[mask]  # (N, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_total = logits.logsumexp(dim=-1)
    best, predicted = logits.max(dim=-1)
    actual = targets[mask]
    losses = log_total - logits.gather(-1, actual[:, None])[:, 0]
    found = (inputs[mask].int(), actual.int(), predicted.int(), losses, best - log_total)
    return tuple(each.cpu() for each in found)


def loss_metrics(total_loss: float, predicted: int, tokens: TokenSplit) -> Metrics:
    """Compute loss (nats per token), perplexity and bits per byte.

    Bits per byte do not depend on the tokenizer: the loss of all tokens, document ends included,
    over the size of the text in UTF-8. They are left out for questions and answers, because the
    tokens of the questions are not scored.

    Args:
        total_loss: sum of the losses in nats.
        predicted: number of tokens scored.
        tokens: the split.
    """
    loss = total_loss / predicted
    metrics: Metrics = {"loss": loss, "perplexity": perplexity(loss)}
    if tokens.index.separator is None:
        metrics["bits_per_byte"] = bits_per_byte(total_loss, tokens.bytes)
    return metrics


def bits_per_byte(nats: float, size: int) -> float:
    """Convert the total loss of a text of ``size`` bytes."""
    return nats / math.log(2) / size


def baseline_metrics(scores: Scores, bigrams: BigramCounts, tokens: TokenSplit) -> Metrics:
    """Compute the loss metrics of the unigram and bigram baselines on the same tokens."""
    metrics: Metrics = {}
    for name, losses in (
        ("unigram", bigrams.unigram_losses(scores.targets)),
        ("bigram", bigrams.bigram_losses(scores.previous, scores.targets)),
    ):
        baseline = loss_metrics(float(losses.sum()), len(scores), tokens)
        metrics |= {f"{name}_{key}": value for key, value in baseline.items()}
    return metrics


def calibration_table(scores: Scores) -> pd.DataFrame:
    """Bin the tokens by confidence, in tenths; empty bins are left out.

    Returns:
        Columns confidence (mean), accuracy and tokens.
    """
    bins = np.minimum((scores.confidences * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    table = pd.DataFrame({"confidence": scores.confidences, "accuracy": scores.correct})
    grouped = table.astype(np.float64).groupby(bins)
    means = grouped.mean()
    means["tokens"] = grouped.size()
    return means.reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """Expected calibration error of a calibration table (arXiv:1706.04599).

    The gap between confidence and accuracy, averaged over tokens. 0 is perfect calibration.
    """
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["tokens"]).sum() / table["tokens"].sum())


@dataclass(frozen=True)
class DocumentScores:
    """The scores of a split, summed per document.

    Attributes:
        tokens: tokens predicted, (D,).
        nats: total loss, (D,).
        correct: tokens predicted correctly, (D,).
    """

    tokens: npt.NDArray[np.int64]
    nats: npt.NDArray[np.float64]
    correct: npt.NDArray[np.float64]

    @classmethod
    def from_scores(cls, scores: Scores, tokens: TokenSplit) -> "DocumentScores":
        """Sum the scores of a whole split."""
        documents, count = document_numbers(tokens), len(tokens.document_ends)
        nats, correct = (
            np.bincount(documents, weights, count).astype(np.float64)
            for weights in (scores.losses.astype(np.float64), scores.correct)
        )
        return cls(np.bincount(documents, minlength=count), nats, correct)

    @property
    def all_correct(self) -> npt.NDArray[np.bool_]:
        """True where every predicted token is right: for a question, its whole answer, (D,)."""
        return np.equal(self.correct, self.tokens)


def document_numbers(tokens: TokenSplit) -> npt.NDArray[np.int64]:
    """Number of the document that each predicted token belongs to, (N,).

    Only the tokens after a document's first separator are predicted, if there are separators.
    """
    lengths = np.diff(tokens.document_ends, prepend=0)
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    separator = tokens.index.separator
    if separator is None:
        return numbers
    is_separator = tokens.read(0, len(tokens)) == separator
    separators_before = np.cumsum(is_separator) - is_separator
    starts = np.concatenate([[0], tokens.document_ends[:-1]])
    answered: npt.NDArray[np.int64] = numbers[
        separators_before > separators_before[starts][numbers]
    ]
    return answered
