"""A split document by document, and source by source: where a model is good and where it is not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.evaluation.perplexity import bits_per_byte
from atlas.evaluation.scores import Scores
from atlas.tokens.split import TokenSplit

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
