"""Which keys each query may see, and how well."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Places:
    """Where the new tokens of a text stand, and all that they may look back at.

    Attributes:
        queries: positions of the new tokens, (T,) or (B, T).
        keys: positions of all tokens, (S,) or (B, S).
        columns: which of the keys each new token is, (T,) or (B, T).
        mask: which of the keys are tokens, (B, S); None if all up to a new one are.
    """

    queries: Tensor
    keys: Tensor
    columns: Tensor
    mask: Tensor | None = None

    @classmethod
    def of_masked(cls, mask: Tensor, before: int = 0) -> "Places":
        """Those of rows in which only some are tokens, (B, S), ``before`` of them not new."""
        keys = positions_of(mask)
        new = mask.shape[1] - before
        columns = torch.arange(before, before + new, device=mask.device)
        return cls(keys.narrow(1, before, new), keys, columns, mask)

    @classmethod
    def of_whole(cls, length: int, device: torch.device) -> "Places":
        """Those of texts of so many tokens, all of which are new."""
        all_of_them = torch.arange(length, device=device)
        return cls(all_of_them, all_of_them, all_of_them)


def positions_of(mask: Tensor) -> Tensor:
    """The position of each token (B, T): how many tokens of its row stand before it.

    What fills up a row counts for nothing, on whichever side of the tokens it is. ``mask`` (B, T)
    says which are tokens.
    """
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def visible_keys(places: Places, *, causal: bool, window: int) -> Tensor:
    """Which keys each query may see, (B or 1, 1, T, S).

    A query always sees itself, so even one that only fills up a row has something to look at.

    Args:
        places: of queries and keys.
        causal: whether later keys are hidden.
        window: how many tokens up to itself a query sees; 0 for all.
    """
    columns = torch.arange(places.keys.shape[-1], device=places.keys.device)  # (S,)
    own = _with_batch(places.columns)[:, :, None]  # (B or 1, T, 1)
    visible = columns <= own if causal else torch.ones_like(columns <= own)  # (B or 1, T, S)
    if places.mask is not None:
        visible = visible & places.mask[:, None, :]  # (B, T, S)
    if window:
        visible = visible & (_distance(places) < window)
    return (visible | (columns == own))[:, None]


def _distance(places: Places) -> Tensor:
    """How far before each query each key stands, (B or 1, T, S)."""
    return _with_batch(places.queries)[:, :, None] - _with_batch(places.keys)[:, None, :]


def _with_batch(positions: Tensor) -> Tensor:
    return positions if positions.dim() == 2 else positions[None]


def additive_mask(visible: Tensor, like: Tensor) -> Tensor:
    """What is added to the scores to hide keys, shaped as ``visible``, typed as ``like``."""
    return like.new_zeros(()).masked_fill(~visible, -torch.inf)


def alibi_bias(places: Places, slopes: Tensor) -> Tensor:
    """What ALiBi adds to the scores, (B or 1, H, T, S): the farther away, the less."""
    return -slopes[:, None, None] * _distance(places).abs()[:, None]
