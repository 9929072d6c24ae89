"""Whether First, Second and Last look at the right digit.

Three operations of the arithmetic language ask where a digit stands, so it is known at what a head
must look that answers them: at the moment of the answer, from ``=``, at the first, the second or
the last digit.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

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
        weights = _looks(model, pick, operation).weight.mean(axis=0)  # (layers, H)
        layer, head = np.unravel_index(int(weights.argmax()), weights.shape)
        looks = _looks(model, judge, operation)
        rows.append(
            {
                "operation": operation,
                "layer": int(layer) + 1,
                "head": int(head) + 1,
                "questions": len(judge),
                "weight": looks.weight[:, layer, head].mean(),
                "others": looks.others[:, layer, head].mean(),
                "found": looks.found[:, layer, head].mean(),
                "flow": looks.flow.mean(),
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


class _Looks(NamedTuple):
    """Where heads look at the last token of each question, (Q, layers, H) each but the last.

    Attributes:
        weight: on the digit that is asked for.
        others: on all other digits together.
        found: whether no digit gets more.
        flow: the same of what reaches the last token through all layers, (Q,).
    """

    weight: Reals
    others: Reals
    found: npt.NDArray[np.bool_]
    flow: npt.NDArray[np.bool_]


def _looks(model: Decoder, questions: Sequence[list[int]], operation: str) -> _Looks:
    parts = []
    for length in sorted({len(ids) for ids in questions}):  # so that rows need no filling up
        some = torch.tensor([ids for ids in questions if len(ids) == length])
        weights = [each.numpy().astype(np.float64) for each in attention_of(model, some)]
        last = np.stack([_digits(each[:, :, -1]) for each in weights], axis=1)  # (Q, layers, H, N)
        reached = [
            _digits(rollout([each[row] for each in weights])[-1]) for row in range(len(some))
        ]
        asked = last[..., POSITIONAL[operation]]
        flow = np.stack(reached)
        parts.append(
            _Looks(
                asked,
                last.sum(axis=-1) - asked,
                _is_most(last, POSITIONAL[operation]),
                _is_most(flow, POSITIONAL[operation]),
            )
        )
    return _Looks(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def _is_most(of_digits: Reals, place: int) -> npt.NDArray[np.bool_]:
    """Whether the digit at a place gets anything, and no other digit more; digits are last."""
    asked = of_digits[..., place]
    most: npt.NDArray[np.bool_] = (asked == of_digits.max(axis=-1)) & (asked > 0)
    return most


def _digits(row: Reals) -> Reals:
    """Of a question, begun by the end of a text: its digits."""
    return row[..., 2:-1]
