"""Which keys a query sees.

A token sees itself and the tokens before it, not the padding, and with a window only so many
(sliding-window attention, as in Mistral 7B, arXiv:2310.06825). Four tokens with a window of 2::

    query 0   x . . .
    query 1   x x . .
    query 2   . x x .
    query 3   . . x x
"""

import numpy as np
import numpy.typing as npt

from atlas.reference.arrays import Array
from atlas.reference.options import Options
from atlas.reference.positions import alibi_bias


def visible_keys(positions: Array, mask: Array | None, window: int) -> Array:
    """(B, T, T), True where the query of the row sees the key of the column.

    Args:
        positions: (1, T) or (B, T), as ``token_positions`` gives them.
        mask: (B, T), True at tokens and False at padding; None without padding.
        window: how many tokens a token sees, itself included; 0 for all.
    """
    length = positions.shape[-1]
    visible = np.tri(length, dtype=bool)[None]  # (1, T, T)
    if mask is not None:
        visible = visible & mask[:, None, :]  # (B, T, T)
    if window:
        visible = visible & (positions[:, :, None] - positions[:, None, :] < window)
    # Padding sees itself, so that no row is empty and softmax has something to share.
    return visible | np.eye(length, dtype=bool)


def attention_mask(
    options: Options, positions: Array, mask: Array | None, dtype: npt.DTypeLike
) -> Array:
    """The mask of attention: (B, 1, T, T) boolean, or with ALiBi (B, H, T, T) to be added."""
    visible = visible_keys(positions, mask, options.window)[:, None]  # (B, 1, T, T)
    if options.positions != "alibi":
        return visible
    bias = alibi_bias(positions, options.n_head).astype(dtype)  # (B, H, T, T)
    return np.where(visible, bias, -np.inf)
