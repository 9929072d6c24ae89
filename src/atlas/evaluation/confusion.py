"""Which token a model takes for which."""

import numpy as np
import pandas as pd

from atlas.evaluation.scores import Scores
from atlas.tokens.pieces import visible
from atlas.tokens.tokenizer import SPACE_MARK, Tokenizer

MOST_ANSWERS = 100  # tokens that answers begin with
MOST_TOKENS = 20  # of other text, the most frequent ones
OTHER = "other"


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
    names = {each: _name(tokenizer, each, questions) for each in kept.tolist()}

    def named(ids: "np.ndarray[tuple[int], np.dtype[np.int32]]") -> list[str]:
        return [names.get(each, OTHER) for each in ids.tolist()]

    frequent = np.isin(actual, kept)
    pairs = np.stack([actual[frequent], predicted[frequent]])
    (first, second), times = np.unique(pairs, axis=1, return_counts=True)
    named_pairs = pd.DataFrame({"actual": named(first), "predicted": named(second), "count": times})
    table = named_pairs.groupby(["actual", "predicted"], sort=False)["count"].sum().reset_index()
    order = {name: place for place, name in enumerate(_in_order([*names.values(), OTHER]))}
    table = table.sort_values(
        ["actual", "predicted"], key=lambda column: column.map(order), ignore_index=True
    )
    table["share"] = table["count"] / table.groupby("actual")["count"].transform("sum")
    return table


def _name(tokenizer: Tokenizer, identity: int, questions: bool) -> str:
    """The piece; the blank that divides an answer from its question says nothing."""
    name = visible(tokenizer.piece(identity))
    return name.strip(visible(SPACE_MARK)) or name if questions else name


def _in_order(names: list[str]) -> list[str]:
    """Numbers by their value, then the rest as it is."""
    return sorted(names, key=lambda name: (0, int(name)) if name.isdecimal() else (1, 0))
