"""Which keys each query may see, and how well."""

import torch
from torch import Tensor


def positions_of(mask: Tensor) -> Tensor:
    """The position of each token (B, T): how many tokens of its row stand before it.

    What fills up a row counts for nothing, on whichever side of the tokens it is. ``mask`` (B, T)
    says which are tokens.
    """
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def visible_keys(
    queries: Tensor, keys: Tensor, mask: Tensor | None, *, causal: bool, window: int
) -> Tensor:
    """Which keys each query may see, (B or 1, 1, T, S).

    The T queries are the last of the S tokens. A query always sees itself, so even one that only
    fills up a row has something to look at.

    Args:
        queries: their positions, (B or 1, T).
        keys: positions of the keys, (B or 1, S).
        mask: which keys are tokens, (B, S); None if all are.
        causal: whether later keys are hidden.
        window: how many tokens up to itself a query sees; 0 for all.
    """
    count, among = queries.shape[1], keys.shape[1]
    places = torch.arange(among, device=keys.device)
    own = places.narrow(0, among - count, count)[:, None]  # (T, 1)
    visible = (places <= own if causal else torch.ones_like(places <= own))[None]  # (1, T, S)
    if mask is not None:
        visible = visible & mask[:, None, :]  # (B, T, S)
    if window:
        visible = visible & (queries[:, :, None] - keys[:, None, :] < window)
    return (visible | (places == own))[:, None]


def additive_mask(visible: Tensor, like: Tensor) -> Tensor:
    """What is added to the scores to hide keys, shaped as ``visible``, typed as ``like``."""
    return like.new_zeros(()).masked_fill(~visible, -torch.inf)


def alibi_bias(queries: Tensor, keys: Tensor, slopes: Tensor) -> Tensor:
    """What ALiBi adds to the scores, (B or 1, H, T, S): the farther away, the less."""
    distance = (queries[:, None, :, None] - keys[:, None, None, :]).abs()  # (B, 1, T, S)
    return -slopes[:, None, None] * distance
