"""A split token by token: what the model thought of each.

All else that evaluation says of a split is made of these numbers. B is the batch, T the context
length, N the number of tokens that were predicted.

Loss, perplexity and bits per byte over a whole split.

Whether a model is as often right as it is sure (Guo et al. 2017, arXiv:1706.04599).

A split document by document, and source by source: where a model is good and where it is not.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.model.language_model import LanguageModel
from atlas.model.loss import perplexity
from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import NO_TARGET, TokenBatch


@dataclass(frozen=True)
class Scores:
    """What a model thought of each predicted token of a split, in the order of the text.

    Attributes:
        before: the token that stands before it, (N,).
        targets: the token, (N,).
        predicted: the likeliest token there, (N,).
        losses: negative logarithm of the target's probability, nats, (N,).
        confidences: probability of the likeliest token, (N,).
    """

    before: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    predicted: npt.NDArray[np.int32]
    losses: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]

    @property
    def loss(self) -> float:
        """Mean loss, nats a token."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def total(self) -> float:
        """Sum of the losses, nats."""
        return float(self.losses.sum(dtype=np.float64))

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each token was the likeliest, (N,)."""
        return np.equal(self.predicted, self.targets)

    def __len__(self) -> int:
        return len(self.targets)


@torch.no_grad()
def score(model: LanguageModel, batches: Iterable[TokenBatch[Any]]) -> Scores:
    """Reads batches and scores each of their targets.

    The model is left in the mode it was in.
    """
    device = model.device
    parts: list[tuple[Tensor, ...]] = []
    with model.evaluating():
        for batch in batches:
            inputs, targets = (torch.from_numpy(part).to(device) for part in batch[:2])
            asked = targets != NO_TARGET
            logits = model(inputs)[asked]  # (N, V)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            everything = logits.logsumexp(dim=-1)
            best, likeliest = logits.max(dim=-1)
            wanted = targets[asked]
            loss = everything - logits.gather(-1, wanted[:, None])[:, 0]
            found = (inputs[asked].int(), wanted.int(), likeliest.int(), loss, (best - everything))
            parts.append(tuple(each.cpu() for each in found))
    before, actual, predicted, losses, logs = (
        torch.cat(each).numpy() for each in zip(*parts, strict=True)
    )
    return Scores(before, actual, predicted, losses, np.exp(logs))


Numbers = dict[str, float | int]


def measures(total: float, predicted: int, tokens: TokenSplit) -> Numbers:
    """Loss (nats a token), perplexity and bits per byte.

    Bits per byte do not depend on the tokenizer: all that was spent on the tokens, ends of
    documents included, over the size of the text in UTF-8. Of questions there are none, as these
    were not paid for.

    Args:
        total: sum of the losses, nats.
        predicted: tokens that they are of.
        tokens: the split.
    """
    found: Numbers = {"loss": total / predicted, "perplexity": perplexity(total / predicted)}
    if tokens.index.separator is None:
        found["bits_per_byte"] = bits_per_byte(total, tokens.bytes)
    return found


def bits_per_byte(nats: float, size: int) -> float:
    """Bits that were spent on a text, over its bytes."""
    return nats / math.log(2) / size


def baseline_measures(scores: Scores, pairs: BigramCounts, tokens: TokenSplit) -> Numbers:
    """The same of two models that only count: every token by itself, and after the one before."""
    found: Numbers = {}
    for name, losses in (
        ("unigram", pairs.unigram_losses(scores.targets)),
        ("bigram", pairs.bigram_losses(scores.before, scores.targets)),
    ):
        by_name = measures(float(losses.sum()), len(scores), tokens)
        found |= {f"{name}_{key}": value for key, value in by_name.items()}
    return found


BINS = 10


def calibration_table(scores: Scores) -> pd.DataFrame:
    """A row of each tenth of confidence: mean confidence, accuracy, tokens; without empty ones."""
    tenth = np.minimum((scores.confidences * BINS).astype(int), BINS - 1)
    table = pd.DataFrame({"confidence": scores.confidences, "accuracy": scores.right})
    grouped = table.astype(np.float64).groupby(tenth)
    means = grouped.mean()
    means["tokens"] = grouped.size()
    return means.reset_index(drop=True)


def calibration_error(table: pd.DataFrame) -> float:
    """The expected calibration error: how far confidence and accuracy are apart, over all tokens.

    0 is a model whose probabilities can be believed.
    """
    gaps = (table["confidence"] - table["accuracy"]).abs()
    return float((gaps * table["tokens"]).sum() / table["tokens"].sum())


MOST_SOURCES = 50  # in the table of sources, those with the most text


def document_of(tokens: TokenSplit) -> npt.NDArray[np.int64]:
    """The number of the document that each predicted token of a split is in, (N,)."""
    lengths = np.diff(tokens.document_ends, prepend=0)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    separator = tokens.index.separator
    if separator is None:
        return owner
    ends_question = tokens.read(0, len(tokens)) == separator
    before = np.cumsum(ends_question) - ends_question  # separators before each token, in all
    starts = np.concatenate([[0], tokens.document_ends[:-1]])
    answers: npt.NDArray[np.int64] = owner[before > before[starts][owner]]
    return answers


@dataclass(frozen=True)
class Sums:
    """The scores of a split, summed up by document; D is the number of documents.

    Attributes:
        tokens: that were predicted, (D,).
        nats: of the loss, (D,).
        right: tokens that were the likeliest, (D,).
    """

    tokens: npt.NDArray[np.int64]
    nats: npt.NDArray[np.float64]
    right: npt.NDArray[np.float64]

    @classmethod
    def of(cls, scores: Scores, tokens: TokenSplit) -> "Sums":
        """Sums up what was thought of each token of a split."""
        owner, count = document_of(tokens), len(tokens.document_ends)
        nats, right = (
            np.bincount(owner, weights, count).astype(np.float64)
            for weights in (scores.losses.astype(np.float64), scores.right)
        )
        return cls(np.bincount(owner, minlength=count), nats, right)

    @property
    def answered(self) -> npt.NDArray[np.bool_]:
        """Whether all of a document, of a question all of its answer, was right, (D,)."""
        return np.equal(self.right, self.tokens)


def by_document(scores: Scores, tokens: TokenSplit, documents: Sequence[Document]) -> pd.DataFrame:
    """A row of each document: id, source, tokens, bytes, loss, bits_per_byte and accuracy.

    Loss is in nats a token. Accuracy is the share of tokens that were the likeliest, of a question
    1 if all of its answer was. Bits per byte of questions are empty.

    Raises:
        AtlasError: these are not the documents of the tokens.
    """
    if len(documents) != len(tokens.document_ends):
        raise AtlasError(
            f"data/clean/{tokens.name}: {len(documents)} documents, and data/tokens has "
            f"{len(tokens.document_ends)}; `dvc repro tokenize` makes both fit"
        )
    sums = Sums.of(scores, tokens)
    table = pd.DataFrame(
        {
            "id": [each.id for each in documents],
            "source": [each.source for each in documents],
            "documents": 1,
            "tokens": sums.tokens,
            "bytes": [len(each.text.encode()) for each in documents],
            "nats": sums.nats,
        }
    )
    if tokens.index.separator is None:
        table["right"], table["answers"] = sums.right, sums.tokens
    else:
        table["right"], table["answers"] = sums.answered, 1
    return table[sums.tokens > 0].reset_index(drop=True)


def with_measures(table: pd.DataFrame, *, questions: bool) -> pd.DataFrame:
    """Sums of nats and right answers as loss, bits per byte and accuracy."""
    shown = table.drop(columns=["nats", "right", "answers"])
    shown["loss"] = table["nats"] / table["tokens"]
    shown["bits_per_byte"] = [
        bits_per_byte(nats, size) if size and not questions else np.nan
        for nats, size in zip(table["nats"], table["bytes"], strict=True)
    ]
    shown["accuracy"] = table["right"] / table["answers"]
    return shown


def by_source(table: pd.DataFrame) -> pd.DataFrame:
    """The sums over the documents of each source, the largest sources first."""
    sums = table.drop(columns="id").groupby("source", sort=True).sum().reset_index()
    order = sums["tokens"].argsort(kind="stable")[::-1]
    return sums.iloc[order[:MOST_SOURCES]].reset_index(drop=True)
