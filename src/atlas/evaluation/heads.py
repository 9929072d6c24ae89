"""Whether First, Second and Last look at the right digit.

Three operations of the arithmetic language ask where a digit stands, so it is known at what a head
must look that answers them: at the moment of the answer, from ``=``, at the first, the second or
the last digit.

What each head does, as numbers from 0 to 1.

A score is the mean weight that queries give to one kind of key, over the queries that have such a
key. B is the batch, H the heads, T the tokens; weights are (B, H, T, T), ids (B, T).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from atlas.model.decoder import Decoder

MOST_TOKENS = 256  # of a window, as weights grow with its square
REPEATED = 24  # random tokens that are read twice
REPETITIONS = 8
CLEAR = 0.4  # a score from which on a head is named after it


def previous_keys(ids: Tensor) -> Tensor:
    """For each query the token before it, (B, T, T)."""
    return torch.ones(ids.shape[1], ids.shape[1]).tril(-1).triu(-1).expand(len(ids), -1, -1)


def first_keys(ids: Tensor) -> Tensor:
    """For each query but the first the first token, (B, T, T)."""
    keys = torch.zeros(len(ids), ids.shape[1], ids.shape[1])
    keys[:, 1:, 0] = 1
    return keys


def own_keys(ids: Tensor) -> Tensor:
    """For each query but the first itself, (B, T, T)."""
    keys = torch.eye(ids.shape[1]).repeat(len(ids), 1, 1)
    keys[:, 0] = 0
    return keys


def same_keys(ids: Tensor) -> Tensor:
    """For each query all earlier tokens that are the same as it, (B, T, T)."""
    return (ids[:, :, None] == ids[:, None, :]).float().tril(-1)


def induction_keys(ids: Tensor) -> Tensor:
    """For each query what followed the same token before, (B, T, T) (arXiv:2209.11895)."""
    followed = torch.zeros_like(same_keys(ids))
    followed[:, :, 1:] = same_keys(ids)[:, :, :-1]
    return followed.tril(-1)


KINDS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "previous": previous_keys,
    "first": first_keys,
    "itself": own_keys,
    "same": same_keys,
    "induction": induction_keys,
}


IN_TEXT, IN_REPETITION = ("previous", "first", "itself"), ("same", "induction")


def score_of(weights: Tensor, keys: Tensor) -> Tensor:
    """The mean weight of each head on ``keys``, (H,), over the queries that have any."""
    given = (weights * keys[:, None]).sum(dim=(0, 2, 3))
    return given / max(1, queries_of(keys))


def queries_of(keys: Tensor) -> int:
    """How many queries have a key of a kind."""
    return int(keys.any(dim=-1).sum())


@torch.no_grad()
def attention_of(model: Decoder, ids: Tensor) -> list[Tensor]:
    """The weights of each layer, (B, H, T, T), of texts below each other, (B, T)."""
    weights: list[Tensor] = []
    with model.evaluating():
        model(ids.to(model.device), weights=weights)
    return [each.float().cpu() for each in weights]


def head_table(model: Decoder, windows: list[Tensor], seed: int) -> pd.DataFrame:
    """A row of each head: layer and head (from 1), a score of each kind, and what it is clearly.

    Whether a head continues what it saw is measured on random tokens that come twice, as in real
    text the same token is seldom followed by the same again; all else on the windows.

    Args:
        model: a decoder.
        windows: ids of real text, (T,) each.
        seed: of the random tokens.
    """
    sums = {kind: np.zeros((model.config.n_layer, model.config.n_head)) for kind in KINDS}
    queries = dict.fromkeys(KINDS, 0)
    twice = repeated(torch.cat(windows), model.config.context_length, seed)
    texts = [(ids[None, :MOST_TOKENS], IN_TEXT) for ids in windows] + [(twice, IN_REPETITION)]
    for ids, kinds in texts:
        weights = attention_of(model, ids)
        for kind in kinds:
            keys = KINDS[kind](ids)
            own = queries_of(keys)
            sums[kind] += own * np.stack([score_of(each, keys).numpy() for each in weights])
            queries[kind] += own
    scores = {kind: sums[kind] / max(1, queries[kind]) for kind in KINDS}
    table = pd.DataFrame(
        [
            {"layer": layer + 1, "head": head + 1}
            | {kind: float(scores[kind][layer, head]) for kind in KINDS}
            for layer in range(model.config.n_layer)
            for head in range(model.config.n_head)
        ]
    )
    values = table[list(KINDS)]
    table["role"] = values.idxmax(axis=1).where(values.max(axis=1) >= CLEAR, "")
    return table


def repeated(known: Tensor, context_length: int, seed: int) -> Tensor:
    """Rows of random tokens that come twice, (B, T), drawn from those that are known."""
    length = max(1, min(REPEATED, context_length // 2))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(sorted(set(known.tolist())))
    drawn = torch.randint(len(tokens), (REPETITIONS, length), generator=generator)
    twice: Tensor = tokens[drawn].repeat(1, 2)
    return twice


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
