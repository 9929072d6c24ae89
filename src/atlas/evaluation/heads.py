"""Attention heads: how much weight each gives to the previous token, to repeats, to digits.

A head's score for one kind of key is the weight of its queries on keys of that kind,
averaged over the queries that have any: from 0 to 1.

Legend: B batch, H heads, T tokens, L layers, Q questions, N digits. Attention weights are
(B, H, T, T), queries down and keys across; ids are (B, T).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from atlas.model.decoder import Decoder

MAX_WINDOW = 256  # tokens; attention weights grow with its square
REPEATED_TOKENS = 24  # length of the random sequence that is repeated
REPEATED_ROWS = 8
ROLE_THRESHOLD = 0.4  # a head with a score this high is named after its kind
# Operations that ask for the digit at a position.
POSITIONAL: Mapping[str, int] = {"First": 0, "Second": 1, "Last": -1}

Reals = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Question = tuple[str, list[int]]  # operation and ids


KEY_KINDS = ("previous", "first", "itself", "same", "induction")
# In real text a token is seldom followed by the same token again, so these need repeated text.
REPETITION_KINDS = ("same", "induction")
TEXT_KINDS = ("previous", "first", "itself")


def key_masks(ids: Tensor) -> dict[str, Tensor]:
    """Mark the keys of each kind for every query, (B, T, T).

    - previous: the token before the query.
    - first: the first token, for each later query.
    - itself: the query, except the first.
    - same: earlier tokens equal to the query.
    - induction: tokens that followed an earlier copy of the query (arXiv:2209.11895).
    """
    b, t = ids.shape
    first, itself = torch.zeros(t, t), torch.eye(t)
    first[1:, 0] = 1
    itself[0] = 0
    same = (ids[:, :, None] == ids[:, None, :]).float().tril(-1)
    return {
        "previous": torch.ones(t, t).tril(-1).triu(-1).expand(b, -1, -1),
        "first": first.expand(b, -1, -1),
        "itself": itself.expand(b, -1, -1),
        "same": same,
        "induction": F.pad(same, (1, 0))[..., :-1].tril(-1),
    }


def head_scores(weights: Tensor, keys: Tensor) -> Tensor:
    """Mean weight that each head gives to marked keys, (H,), over queries that have any."""
    weight = (weights * keys[:, None]).sum(dim=(0, 2, 3))
    return weight / max(1, count_queries(keys))


def count_queries(keys: Tensor) -> int:
    """Count the queries that have a marked key."""
    return int(keys.any(dim=-1).sum())


@torch.no_grad()
def attention_weights(model: Decoder, ids: Tensor) -> list[Tensor]:
    """Run the model and return the weights of each layer, (B, H, T, T)."""
    weights: list[Tensor] = []
    with model.evaluating():
        model(ids.to(model.device), weights=weights)
    return [each.float().cpu() for each in weights]


def head_table(model: Decoder, windows: list[Tensor], seed: int) -> pd.DataFrame:
    """Score every head for every kind of key.

    Args:
        model: a decoder.
        windows: ids of real text, (T,) each.
        seed: for the random sequence that measures ``REPETITION_KINDS``.

    Returns:
        Columns layer, head (both from 1), one per kind, and role (the kind with the highest score,
        empty below ``ROLE_THRESHOLD``).
    """
    n_layer, n_head = model.config.n_layer, model.config.n_head
    sums = {kind: np.zeros((n_layer, n_head)) for kind in KEY_KINDS}
    queries = dict.fromkeys(KEY_KINDS, 0)
    random_ids = repeated_sequence(torch.cat(windows), model.config.context_length, seed)
    texts = [(ids[None, :MAX_WINDOW], TEXT_KINDS) for ids in windows]
    for ids, kinds in [*texts, (random_ids, REPETITION_KINDS)]:
        weights, masks = attention_weights(model, ids), key_masks(ids)
        for kind in kinds:
            keys = masks[kind]
            count = count_queries(keys)
            sums[kind] += count * np.stack([head_scores(each, keys).numpy() for each in weights])
            queries[kind] += count
    scores = {kind: sums[kind] / max(1, queries[kind]) for kind in KEY_KINDS}
    table = pd.DataFrame(
        [
            {"layer": layer + 1, "head": head + 1}
            | {kind: float(scores[kind][layer, head]) for kind in KEY_KINDS}
            for layer in range(n_layer)
            for head in range(n_head)
        ]
    )
    values = table[list(KEY_KINDS)]
    table["role"] = values.idxmax(axis=1).where(values.max(axis=1) >= ROLE_THRESHOLD, "")
    return table


def repeated_sequence(known: Tensor, context_length: int, seed: int) -> Tensor:
    """Draw random sequences from the known tokens and repeat each once, (B, T)."""
    length = max(1, min(REPEATED_TOKENS, context_length // 2))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(sorted(set(known.tolist())))
    drawn = torch.randint(len(tokens), (REPEATED_ROWS, length), generator=generator)
    repeated: Tensor = tokens[drawn].repeat(1, 2)
    return repeated


def digit_table(
    model: Decoder, selection: Sequence[Question], test: Sequence[Question]
) -> pd.DataFrame:
    """Measure how often a head attends to the digit that First, Second or Last asks for.

    The answer is predicted at the last token of the question, so that is the query.

    Args:
        model: a decoder that answers such questions.
        selection: questions that select the head of each operation.
        test: other questions, which measure it.

    Returns:
        Columns operation, layer and head (from 1), questions, weight (mean weight on the right
        digit), others (on all other digits together), found (share of the questions where no digit
        gets more), and flow (the same share for attention rollout through all layers and heads).
    """
    rows = []
    for operation, position in POSITIONAL.items():
        select_ids = [ids for name, ids in selection if name == operation]
        test_ids = [ids for name, ids in test if name == operation]
        if not (select_ids and test_ids):
            continue
        weights = _digit_attention(model, select_ids, position)["weight"].mean(axis=0)  # (L, H)
        layer, head = np.unravel_index(int(weights.argmax()), weights.shape)
        found = _digit_attention(model, test_ids, position)
        rows.append(
            {
                "operation": operation,
                "layer": int(layer) + 1,
                "head": int(head) + 1,
                "questions": len(test_ids),
                **{key: found[key][:, layer, head].mean() for key in ("weight", "others", "found")},
                "flow": found["flow"].mean(),
            }
        )
    return pd.DataFrame(rows)


def rollout(weights: Sequence[Reals]) -> Reals:
    """Attention rollout (arXiv:2005.00928): how much of each token reaches each other, (T, T).

    Heads count equally, and the residual connection carries half of each layer.

    Args:
        weights: of each layer, (H, T, T).
    """
    reached = np.eye(weights[0].shape[-1])
    for layer in weights:
        reached = (layer.mean(axis=0) + np.eye(len(reached))) / 2 @ reached
    return reached


def _digit_attention(
    model: Decoder, questions: Sequence[list[int]], position: int
) -> dict[str, npt.NDArray[Any]]:
    """Attention from the last token of each question to its digits.

    Returns:
        The weight on the digit at ``position`` and on all others together, (Q, L, H); found, True
        where no digit gets more, (Q, L, H); and flow, the same for rollout, (Q,).
    """
    parts = []
    for length in sorted({len(ids) for ids in questions}):  # equal lengths need no padding
        batch = torch.tensor([ids for ids in questions if len(ids) == length])
        weights = [each.numpy().astype(np.float64) for each in attention_weights(model, batch)]
        last = np.stack([_digits(each[:, :, -1]) for each in weights], axis=1)  # (Q, L, H, N)
        reached = np.stack(
            [_digits(rollout([each[row] for each in weights])[-1]) for row in range(len(batch))]
        )  # (Q, N)
        weight = last[..., position]
        parts.append(
            {
                "weight": weight,
                "others": last.sum(axis=-1) - weight,
                "found": _is_largest(last, position),
                "flow": _is_largest(reached, position),
            }
        )
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _digits(row: Reals) -> Reals:
    """Keep the digits: without the end-of-text token and operation before, and "=" after."""
    return row[..., 2:-1]


def _is_largest(weights: Reals, position: int) -> Bools:
    """True where the digit at ``position`` has weight and no other has more; digits are last."""
    weight = weights[..., position]
    largest: Bools = (weight == weights.max(axis=-1)) & (weight > 0)
    return largest
