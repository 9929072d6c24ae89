"""Positions: the encodings, and the mask of keys that a query sees.

learned     a trained vector per position, added to the embedding
sinusoidal  a fixed vector per position, added to the embedding (arXiv:1706.03762, section 3.5)
rope        queries and keys are rotated by an angle proportional to the position, so that scores
            depend only on distances (arXiv:2104.09864)
alibi       scores are lowered by the distance times a slope per head (arXiv:2108.12409)

Legend: B batch, T time, C channels, H heads, D head size. Positions count from 0 and are (1, T), or
(B, T) with padding.
"""

import math

import numpy as np
import numpy.typing as npt

from atlas.reference.layers import Array, Cache
from atlas.reference.options import Options

Rotation = tuple[Array, Array]  # cosine and sine of RoPE's angles


def token_positions(length: int, mask: Array | None) -> Array:
    """Number of tokens before each token in its row: (1, T), or (B, T) with a mask.

    The mask (B, T) is True at tokens and False at padding, so padding does not move a token.
    """
    if mask is None:
        return np.arange(length)[None]  # (1, T)
    positions: Array = np.maximum(np.cumsum(mask, axis=1) - 1, 0)  # (B, T)
    return positions


def visible_keys(positions: Array, mask: Array | None, window: int | None) -> Array:
    """Mark the keys (columns) that each query (row) sees, (B, T, T).

    A token sees itself and earlier tokens but no padding. With a window it sees only the last few
    (sliding-window attention, arXiv:2310.06825). Four tokens with a window of 2::

        query 0   x . . .
        query 1   x x . .
        query 2   . x x .
        query 3   . . x x

    Args:
        positions: (1, T) or (B, T), from ``token_positions``.
        mask: (B, T), True at tokens and False at padding.
        window: number of tokens a query sees, itself included; None for all.
    """
    length = positions.shape[-1]
    visible = np.tri(length, dtype=bool)[None]  # (1, T, T)
    if mask is not None:
        visible = visible & mask[:, None, :]  # (B, T, T)
    if window:
        visible = visible & (positions[:, :, None] - positions[:, None, :] < window)
    # Padding sees itself: softmax needs at least one key in each row.
    return visible | np.eye(length, dtype=bool)


def attention_mask(
    options: Options, positions: Array, mask: Array | None, dtype: npt.DTypeLike
) -> Array:
    """The mask of attention: boolean (B, 1, T, T), or with ALiBi a bias (B, H, T, T)."""
    visible = visible_keys(positions, mask, options.window)[:, None]  # (B, 1, T, T)
    if options.positions != "alibi":
        return visible
    bias = alibi_bias(positions, options.n_head).astype(dtype)  # (B, H, T, T)
    return np.where(visible, bias, -np.inf)


def sinusoidal_table(length: int, d_model: int) -> Array:
    """Sinusoidal position encoding, (T, C) in float64.

    PE[t, 2i] = sin(t / 10000^(2i/C)), PE[t, 2i+1] = cos(t / 10000^(2i/C)), divided by sqrt(C).
    The paper instead multiplies the embedding by sqrt(C). The ratio is the same, and the logits of
    a tied head keep their size.
    """
    channels = np.arange(d_model)  # (C,)
    angles = np.arange(length)[:, None] / 10_000 ** ((channels - channels % 2) / d_model)  # (T, C)
    table: Array = np.where(channels % 2 == 0, np.sin(angles), np.cos(angles))
    return table / math.sqrt(d_model)


def rope_rotation(
    positions: Array, head_size: int, theta: float, scaling: float, dtype: npt.DTypeLike
) -> Rotation:
    """Cosine and sine of RoPE's angles, each (B, 1, T, D/2) with an axis for the heads.

    The angle of channel pair i is position / scaling * theta^(-2i/D).
    """
    rates = theta ** (-np.arange(0, head_size, 2) / head_size)  # (D/2,)
    angles = (positions / scaling)[..., None, :, None] * rates  # (B, 1, T, D/2)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def rope_forward(x: Array, rotation: Rotation) -> tuple[Array, Cache]:
    """Rotate queries or keys, (B, H, T, D) to (B, H, T, D).

    Channels i and i + D/2 are the coordinates of one point, as in transformers' Llama.
    """
    cosine, sine = rotation  # (B, 1, T, D/2)
    return _rotate(x, cosine, sine), rotation


def rope_backward(dout: Array, cache: Cache) -> Array:
    """Rotate back, (B, H, T, D) to (B, H, T, D): the transpose of a rotation is its inverse."""
    cosine, sine = cache
    return _rotate(dout, cosine, -sine)


def _rotate(x: Array, cosine: Array, sine: Array) -> Array:
    first, second = np.split(x, 2, axis=-1)  # (B, H, T, D/2) each
    return np.concatenate(
        (first * cosine - second * sine, second * cosine + first * sine), axis=-1
    )  # (B, H, T, D)


def alibi_slopes(n_head: int) -> Array:
    """ALiBi's slope of each head, (H,) in float64.

    If H is a power of two, the slopes are 2^(-8/H), its square, its cube and so on. Otherwise they
    are those of the next lower power m, followed by every second slope of 2m, as in the authors'
    code::

        4 heads    1/4  1/16  1/64  1/256
        6 heads    1/4  1/16  1/64  1/256   1/2  1/8

    """
    power = 2 ** math.floor(math.log2(n_head))
    heads = np.arange(n_head)
    regular = 2 ** (-8 / power * (heads + 1))
    between = 2 ** (-4 / power * (2 * (heads - power) + 1))
    slopes: Array = np.where(heads < power, regular, between)
    return slopes


def alibi_bias(positions: Array, n_head: int) -> Array:
    """ALiBi's bias, -slope * (query position - key position), (B, H, T, T) in float64."""
    distances = positions[..., :, None] - positions[..., None, :]  # (B, T, T)
    bias: Array = -alibi_slopes(n_head)[:, None, None] * distances[..., None, :, :]
    return bias
