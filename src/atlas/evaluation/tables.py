"""Tables of token scores: per document, per source, calibration and confusion."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from atlas.cleaning.documents import Document, Split
from atlas.errors import AtlasError
from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.scores import Metrics, Scores, calibration_table, document_scores
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import SPACE_MARK, Tokenizer, visible

MAX_SOURCES = 50  # the largest ones
MAX_ANSWER_TOKENS = 100  # rows and columns of the confusion table of answers
MAX_TEXT_TOKENS = 20  # and of other text
OTHER, OTHER_ID = "other", -1
TAG_START = re.compile("<(?=[A-Za-z/!?])")  # any other < is text to a browser


def write_table(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write a CSV file with nine significant digits and without markup."""
    texts = table.select_dtypes(exclude="number")
    texts = texts.map(lambda cell: without_tags(cell) if isinstance(cell, str) else cell)
    table = table.assign(**texts)
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.9g", lineterminator="\n")


def without_tags(label: str) -> str:
    """Replace each < that begins a tag or a comment by a single angle quotation mark.

    ``dvc plots`` pastes cells into a script of its page. There, </script> in the name of a file or
    in a token would end the script, and the markup behind it would run.
    """
    return TAG_START.sub("\u2039", label)


def write_score_tables(evaluator: Evaluator, scores: Scores, folder: Path) -> None:
    """Write tables of documents, sources, calibration and confusion from the scores of a split."""
    split, questions = evaluator.table_split, evaluator.has_questions
    sums = document_sums(scores, evaluator.splits[split], evaluator.documents(split))
    write_table(with_averages(sums, questions=questions), folder, "documents")
    write_table(with_averages(source_sums(sums), questions=questions), folder, "sources")
    write_table(calibration_table(scores), folder, "calibration")
    confusion = confusion_table(scores, evaluator.tokenizer, questions=questions)
    write_table(confusion, folder, "confusion")


def corpus_metrics(evaluator: Evaluator, split: Split, scores: Scores) -> Metrics:
    """Return loss, bits per byte and accuracy of each corpus of a mix, such as ``loss.stories``."""
    tokens, questions = evaluator.splits[split], evaluator.has_questions
    if not tokens.index.splits[split].corpora:
        return {}
    sums = source_sums(document_sums(scores, tokens, evaluator.documents(split)))
    table = with_averages(sums, questions=questions).set_index("source")
    columns = ["loss", "accuracy"] if questions else ["loss", "bits_per_byte", "accuracy"]
    return {
        f"{column}.{corpus}": float(value)
        for column in columns
        for corpus, value in table[column].items()
    }


def document_sums(
    scores: Scores, tokens: TokenSplit, documents: Sequence[Document]
) -> pd.DataFrame:
    """Sum the scores per document; documents without predicted tokens are left out.

    Returns:
        Columns id, source, documents (1), tokens, bytes, nats, correct and answers. Correct and
        answers count tokens, or whole answers if the documents are questions.

    Raises:
        AtlasError: the tokens were made from other documents.
    """
    if len(documents) != len(tokens.document_ends):
        raise AtlasError(
            f"data/clean/{tokens.name} has {len(documents)} documents, but data/tokens has "
            f"{len(tokens.document_ends)}; run `dvc repro tokenize`"
        )
    sums = document_scores(scores, tokens)
    table = pd.DataFrame(
        {
            "id": [document.id for document in documents],
            "source": [document.table_source for document in documents],
            "documents": 1,
            "tokens": sums["tokens"],
            "bytes": [len(document.text.encode()) for document in documents],
            "nats": sums["nats"],
        }
    )
    if tokens.index.separator is None:
        table["correct"], table["answers"] = sums["correct"], sums["tokens"]
    else:
        table["correct"], table["answers"] = sums["all_correct"], 1
    return table[sums["tokens"] > 0].reset_index(drop=True)


def source_sums(documents: pd.DataFrame) -> pd.DataFrame:
    """Sum the scores of the documents of each source; the largest sources come first."""
    sums = documents.drop(columns="id").groupby("source", sort=True).sum().reset_index()
    order = sums["tokens"].argsort(kind="stable")[::-1]
    return sums.iloc[order[:MAX_SOURCES]].reset_index(drop=True)


def with_averages(sums: pd.DataFrame, *, questions: bool) -> pd.DataFrame:
    """Replace sums by loss (nats per token), bits per byte and accuracy.

    Questions have no bits per byte: their own tokens are not scored.
    """
    table = sums.drop(columns=["nats", "correct", "answers"])
    table["loss"] = sums["nats"] / sums["tokens"]
    bits = sums["nats"] / math.log(2)
    table["bits_per_byte"] = np.nan if questions else bits / sums["bytes"].replace(0, np.nan)
    table["accuracy"] = sums["correct"] / sums["answers"]
    return table


def confusion_table(scores: Scores, tokenizer: Tokenizer, *, questions: bool) -> pd.DataFrame:
    """Count how often each token is predicted for each actual token.

    Only frequent tokens have rows; all other predictions are one token, "other". Document ends are
    left out: they would be right in every answer.

    Returns:
        Columns actual, predicted, count, and share (of all predictions for the actual token).
    """
    mask = scores.targets != tokenizer.eos
    actual, predicted = scores.targets[mask], scores.predicted[mask]
    tokens, counts = np.unique(actual, return_counts=True)
    limit = MAX_ANSWER_TOKENS if questions else MAX_TEXT_TOKENS
    frequent = np.sort(tokens[np.argsort(-counts, kind="stable")[:limit]])
    labels = _labels(tokenizer, frequent.tolist(), questions)
    grouped = np.where(np.isin(predicted, frequent), predicted, OTHER_ID)
    pairs = pd.DataFrame({"actual": actual, "predicted": grouped})[np.isin(actual, frequent)]
    table = pairs.value_counts().reset_index()
    for column in ("actual", "predicted"):
        table[column] = table[column].map(labels)
    order = {label: rank for rank, label in enumerate(_numbers_first(list(labels.values())))}
    table = table.sort_values(
        ["actual", "predicted"], key=lambda column: column.map(order), ignore_index=True
    )
    table["share"] = table["count"] / table.groupby("actual")["count"].transform("sum")
    return table


def _labels(tokenizer: Tokenizer, ids: list[int], questions: bool) -> dict[int, str]:
    """Make a distinct label per piece, and one for all other tokens.

    Pieces of answers lose their leading space if they remain distinct without it. Pieces that look
    equal, such as a blank and a middle dot, are followed by their ids.
    """
    pieces = [without_tags(visible(tokenizer.piece(token))) for token in ids]
    if questions:
        stripped = [piece.strip(visible(SPACE_MARK)) or piece for piece in pieces]
        pieces = [
            short if stripped.count(short) == 1 else piece
            for short, piece in zip(stripped, pieces, strict=True)
        ]
    pieces = [
        piece if pieces.count(piece) == 1 else f"{piece} ({token})"
        for token, piece in zip(ids, pieces, strict=True)
    ]
    other = OTHER if OTHER not in pieces else f"{OTHER} tokens"
    return dict(zip(ids, pieces, strict=True)) | {OTHER_ID: other}


def _numbers_first(labels: list[str]) -> list[str]:
    """Sort numbers by value; other values follow in their original order."""
    return sorted(labels, key=lambda label: (0, int(label)) if label.isdecimal() else (1, 0))
