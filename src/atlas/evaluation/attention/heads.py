"""What each head does, as numbers from 0 to 1.

A score is the mean weight that queries give to one kind of key, over the queries that have such a
key. B is the batch, H the heads, T the tokens; weights are (B, H, T, T), ids (B, T).
"""

from collections.abc import Callable, Mapping

import numpy as np
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
