"""Which token a model takes for which."""

import numpy as np
import pandas as pd

from atlas.evaluation.scores import Scores
from atlas.tokens.pieces import visible
from atlas.tokens.tokenizer import SPACE_MARK, Tokenizer

MOST_ANSWERS = 100  # tokens that answers begin with
MOST_TOKENS = 20  # of other text, the most frequent ones
OTHER, REST = "other", -1


def confusion_table(scores: Scores, tokenizer: Tokenizer, *, questions: bool) -> pd.DataFrame:
    """A row of each pair that occurs: actual, predicted, count, and share of all of the actual.

    Of text the most frequent tokens, all others as one. Ends of texts are left out, as they would
    be right in every answer.
    """
    asked = scores.targets != tokenizer.eos
    actual, predicted = scores.targets[asked], scores.predicted[asked]
    tokens, counts = np.unique(actual, return_counts=True)
    most = MOST_ANSWERS if questions else MOST_TOKENS
    kept = np.sort(tokens[np.argsort(-counts, kind="stable")[:most]])
    names = _names(tokenizer, kept.tolist(), questions)
    frequent = np.isin(actual, kept)
    taken_for = np.where(np.isin(predicted, kept), predicted, REST)
    pairs = np.stack([actual[frequent], taken_for[frequent]])
    (first, second), times = np.unique(pairs, axis=1, return_counts=True)
    table = pd.DataFrame({"actual": first, "predicted": second, "count": times})
    for column in ("actual", "predicted"):
        table[column] = table[column].map(names)
    order = {name: place for place, name in enumerate(_in_order(list(names.values())))}
    table = table.sort_values(
        ["actual", "predicted"], key=lambda column: column.map(order), ignore_index=True
    )
    table["share"] = table["count"] / table.groupby("actual")["count"].transform("sum")
    return table


def _names(tokenizer: Tokenizer, ids: list[int], questions: bool) -> dict[int, str]:
    """Names that differ: the pieces, and one for the rest.

    Of answers without the blank that divides them from their question, if that says nothing.
    """
    pieces = [visible(tokenizer.piece(each)) for each in ids]
    if questions:
        bare = [piece.strip(visible(SPACE_MARK)) or piece for piece in pieces]
        pieces = [
            name if bare.count(name) == 1 else piece
            for name, piece in zip(bare, pieces, strict=True)
        ]
    rest = OTHER if OTHER not in pieces else f"{OTHER} tokens"
    return dict(zip(ids, pieces, strict=True)) | {REST: rest}


def _in_order(names: list[str]) -> list[str]:
    """Numbers by their value, then the rest as it is."""
    return sorted(names, key=lambda name: (0, int(name)) if name.isdecimal() else (1, 0))
