"""Whether First, Second and Last look at the right digit.

Three operations of the arithmetic language ask where a digit stands, so it is known at what a head
must look that answers them: at the moment of the answer, from ``=``, at the first, the second or
the last digit.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from atlas.evaluation.attention.heads import attention_of
from atlas.model.decoder import Decoder

POSITIONAL: Mapping[str, int] = {"First": 0, "Second": 1, "Last": -1}  # which digit is asked for
Reals = npt.NDArray[np.float64]


def digit_table(
    model: Decoder,
    chosen: Sequence[tuple[str, list[int]]],
    judged: Sequence[tuple[str, list[int]]],
) -> pd.DataFrame:
    """A row of each positional operation: the head that looks at the right digit, and how well.

    Which head that is, is found out with other questions than those by which it is judged.

    Args:
        model: a decoder that answers such questions.
        chosen: operation and ids of each question that picks a head.
        judged: the same of those that judge it.

    Returns:
        Columns operation, layer and head (from 1), questions, ``weight`` (mean weight on the right
        digit), ``others`` (on all other digits together), and ``found`` (share of the questions in
        which no digit gets more). ``flow`` is the same share for all heads and layers together
        (attention rollout, arXiv:2005.00928).
    """
    rows = []
    for operation in POSITIONAL:
        pick = [ids for name, ids in chosen if name == operation]
        judge = [ids for name, ids in judged if name == operation]
        if not (pick and judge):
            continue
        weights = np.mean([_right(_from_last(model, ids), operation) for ids in pick], axis=0)
        layer, head = np.unravel_index(int(weights.argmax()), weights.shape)
        looks = [_from_last(model, ids)[layer, head] for ids in judge]
        rows.append(
            {
                "operation": operation,
                "layer": int(layer) + 1,
                "head": int(head) + 1,
                "questions": len(judge),
                "weight": float(np.mean([_right(look, operation) for look in looks])),
                "others": float(np.mean([look.sum() - _right(look, operation) for look in looks])),
                "found": float(np.mean([_is_largest(look, operation) for look in looks])),
                "flow": float(
                    np.mean([_is_largest(_flow(model, ids), operation) for ids in judge])
                ),
            }
        )
    return pd.DataFrame(rows)


def rollout(weights: Sequence[Reals]) -> Reals:
    """How much of each token reaches each other one through all layers, (T, T).

    Heads count the same, and half of every layer is what goes past it.

    Args:
        weights: of each layer, (H, T, T).
    """
    reached = np.eye(weights[0].shape[-1])
    for layer in weights:
        reached = (layer.mean(axis=0) + np.eye(len(reached))) / 2 @ reached
    return reached


def _from_last(model: Decoder, ids: list[int]) -> Reals:
    """What each head gives each digit at the last token of a question, (layers, H, digits)."""
    weights = attention_of(model, torch.tensor([ids]))
    return np.stack([_digits(each[0].numpy().astype(np.float64)[:, -1]) for each in weights])


def _flow(model: Decoder, ids: list[int]) -> Reals:
    """What reaches the last token of a question of each digit, (digits,)."""
    weights = attention_of(model, torch.tensor([ids]))
    return _digits(rollout([each[0].numpy().astype(np.float64) for each in weights])[-1])


def _digits(row: Reals) -> Reals:
    """Of a question, begun by the end of a text: its digits."""
    return row[..., 2:-1]


def _right(look: Reals, operation: str) -> Reals:
    """What the digit that is asked for gets."""
    right: Reals = look[..., POSITIONAL[operation]]
    return right


def _is_largest(look: Reals, operation: str) -> bool:
    return bool(look[POSITIONAL[operation]] == look.max())
