"""Score a split token by token, in adjacent or sliding windows, and summarize the scores.

Legend: N predicted tokens, D documents, V vocabulary.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from atlas.model.language_model import LanguageModel
from atlas.model.loss import perplexity
from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import GIVEN, ID_BITS, TokenSplit
from atlas.tokens.windows import NO_TARGET, Rows, TokenBatch

CALIBRATION_BINS = 10
MAX_LOGITS = 1 << 24  # computed at once, 64 MB in float32

Metrics = dict[str, float | int]


@dataclass(frozen=True)
class Scores:
    """The model's prediction of each token of a split, in the order of the text, (N,) each."""

    previous: npt.NDArray[np.int32]  # the token before the target
    targets: npt.NDArray[np.int32]  # the actual token
    predicted: npt.NDArray[np.int32]  # the most likely token
    losses: npt.NDArray[np.float32]  # negative log probability of the target, nats
    confidences: npt.NDArray[np.float32]  # probability of the most likely token

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
    """Score every target in the batches; the model keeps its train or eval mode.

    Memory is bounded: a batch is divided if the logits of its windows are more than ``MAX_LOGITS``.
    """
    with model.evaluating():
        parts = [
            part
            for batch in batches
            for share in _shares(batch, model.config.vocab_size)
            for part in _score_batch(model, share)
        ]
    previous, targets, predicted, losses, log_confidences = (
        torch.cat(each).numpy() for each in zip(*parts, strict=True)
    )
    return Scores(previous, targets, predicted, losses, np.exp(log_confidences))


def _shares(batch: TokenBatch[Any], vocab_size: int) -> Iterator[TokenBatch[Any]]:
    """Divide a batch into windows that fit in memory together, at least one."""
    return batch.split(max(1, MAX_LOGITS // (batch.inputs.shape[1] * vocab_size)))


def _score_batch(model: LanguageModel, batch: TokenBatch[Any]) -> Iterator[tuple[Tensor, ...]]:
    """Previous tokens, targets, predictions, losses and log confidences, (N,) each, in parts."""
    inputs, targets = (torch.from_numpy(array).to(model.device) for array in batch[:2])
    logits = model(inputs).flatten(0, 1)  # (B * T, V)
    chosen = (targets != NO_TARGET).flatten().nonzero()[:, 0]  # (N,)
    for rows in torch.split(chosen, max(1, MAX_LOGITS // logits.shape[1])):
        part = logits[rows]
        part = part.to(torch.promote_types(part.dtype, torch.float32))
        log_total = part.logsumexp(dim=-1)
        best, predicted = part.max(dim=-1)
        actual = targets.flatten()[rows]
        losses = log_total - part.gather(-1, actual[:, None])[:, 0]
        previous = inputs.flatten()[rows].int()
        found = (previous, actual.int(), predicted.int(), losses, best - log_total)
        yield tuple(each.cpu() for each in found)


def loss_metrics(total_loss: float, predicted: int, tokens: TokenSplit) -> Metrics:
    """Compute loss (nats per token), perplexity and bits per byte from a total loss in nats.

    Bits per byte is the loss of all tokens, document ends included, over the size of the text in
    UTF-8, and so comparable between tokenizers. It is left out if some tokens are given, such as
    those of questions, because they are not scored.
    """
    loss = total_loss / predicted
    metrics: Metrics = {"loss": loss, "perplexity": perplexity(loss)}
    if not tokens.has_given:
        metrics["bits_per_byte"] = total_loss / math.log(2) / tokens.bytes
    return metrics


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


def document_scores(scores: Scores, tokens: TokenSplit) -> pd.DataFrame:
    """Sum the scores of a whole split per document.

    Returns:
        Columns tokens (predicted), nats (their total loss), correct (tokens predicted correctly)
        and all_correct (True if all are: for a question, its whole answer).
    """
    documents, count = document_numbers(tokens), len(tokens.document_ends)
    table = pd.DataFrame(
        {
            "tokens": np.bincount(documents, minlength=count),
            "nats": np.bincount(documents, scores.losses, count),
            "correct": np.bincount(documents, scores.correct, count),
        }
    )
    table["all_correct"] = table["correct"] == table["tokens"]
    return table


def document_numbers(tokens: TokenSplit) -> npt.NDArray[np.int64]:
    """Number of the document that each predicted token belongs to, (N,)."""
    lengths = np.diff(tokens.document_ends, prepend=0)
    numbers = np.repeat(np.arange(len(lengths)), lengths)
    return numbers[~tokens.given(0, len(numbers))] if tokens.has_given else numbers


def sliding_windows(
    tokens: TokenSplit, sequence_length: int, stride: int, batch_size: int
) -> Iterator[TokenBatch[npt.NDArray[Any]]]:
    """Yield batches that predict each token of a split once, with nearly a full context before it.

    In adjacent windows the first tokens have little context, which raises the loss. Sliding windows
    overlap, and only the new tokens of each are scored. The last window reaches back to be full, as
    in lm-evaluation-harness::

        T = 4, stride = 2       |a b c d|          scored: a b c d
                                    |c d e f|              e f
                                        |e f g h|          g h

    Windows stay within a document if the split was tokenized with padded windows. ``stride``, 1 to
    T, is the number of tokens scored per window, except in the first window of a text.
    """
    rows = (
        _window(tokens, first, begin, end, sequence_length)
        for first, last in _texts(tokens)
        for begin, end in _scored_ranges(last - first, sequence_length, stride)
    )
    while batch := list(islice(rows, batch_size)):
        inputs, targets = (np.stack(each) for each in zip(*batch, strict=True))
        mask = inputs != NO_TARGET
        padded: Rows = np.where(mask, inputs & ID_BITS, tokens.index.pad)
        targets[targets & GIVEN != 0] = NO_TARGET  # of positions without a target, too
        if tokens.index.bos is not None:
            padded[:, 0] = tokens.index.bos
        yield TokenBatch(padded, targets, mask)


def _texts(tokens: TokenSplit) -> Iterator[tuple[int, int]]:
    """Start and end of each document, or of the whole split if its windows are packed."""
    if tokens.index.crosses_documents:
        yield 0, len(tokens)
        return
    yield from pairwise([0, *map(int, tokens.document_ends)])


def _scored_ranges(length: int, sequence_length: int, stride: int) -> Iterator[tuple[int, int]]:
    """Start and end of the tokens that each window of a text scores."""
    begin, end = 0, min(sequence_length, length)
    while begin < length:
        yield begin, end
        begin, end = end, min(end + stride, length)


def _window(
    tokens: TokenSplit, first: int, begin: int, end: int, sequence_length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Inputs and targets of one window, (T,) each, padded on the right with ``NO_TARGET``."""
    start = max(0, end - sequence_length)
    if start:
        window = tokens.read_flagged(first + start - 1, first + end)
    else:  # the start of a text, which follows the end of another
        window = np.concatenate([[tokens.index.eos], tokens.read_flagged(first, first + end)])
    inputs, targets = (np.full(sequence_length, NO_TARGET, np.int64) for _ in range(2))
    inputs[: end - start] = window[:-1]
    targets[begin - start : end - start] = window[1 + begin - start :]
    return inputs, targets
