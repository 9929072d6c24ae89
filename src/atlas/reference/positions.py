"""Positions: the encodings, and the mask of keys that a query sees.

learned     a trained vector per position, added to the embedding
sinusoidal  a fixed vector per position, added to the embedding (arXiv:1706.03762, section 3.5)
rope        queries and keys are rotated by an angle proportional to the position, so that scores
            depend only on distances (arXiv:2104.09864)
alibi       scores are lowered by the distance times a slope per head (arXiv:2108.12409)

Legend: B batch, T time, C channels, H heads, D head size, R of its channels rotate. Positions count
from 0 and are (1, T), or (B, T) with padding.
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


ROTATIONS = {"llama3": (1.0, 4.0), "yarn": (1.0, 32.0)}  # of the authors' models


def rope_frequencies(options: Options) -> tuple[Array, float]:
    """RoPE's angles per position, (R/2,) in float64, and the length of rotated points.

    Pair i turns by theta^(-2i/R) per position, that is n times in the context that the model was
    first trained on. For a context s = rope_scaling times as long::

                              pairs with n < low     between              n > high
        linear                divided by s           divided by s         divided by s
        llama3                divided by s           blend, linear in n   kept
        yarn                  divided by s           blend, linear in i   kept

    YaRN lengthens the points by 0.1 ln(s) + 1 (arXiv:2309.00071); linear is position interpolation
    (arXiv:2306.15595), llama3 that of Llama 3.1.
    """
    size, theta, scaling = options.rotary_channels, options.rope_theta, options.rope_scaling
    frequencies: Array = theta ** (-np.arange(0, size, 2) / size)  # (R/2,)
    context = options.rope_scaling_context
    if options.rope_scaling_kind == "linear" or context is None:
        return frequencies / scaling, 1.0
    low, high = options.rope_scaling_rotations or ROTATIONS[options.rope_scaling_kind]
    if options.rope_scaling_kind == "llama3":
        turns = frequencies * context / (2 * math.pi)
        return frequencies * np.interp(turns, (low, high), (1 / scaling, 1)), 1.0
    # Pair i turns n times if theta^(-2i/R) context = 2 pi n; the bounds are whole pairs.
    first, last = (size / 2 * math.log(context / (2 * math.pi * n), theta) for n in (high, low))
    begin, end = max(math.floor(first), 0), min(math.ceil(last), size - 1)
    width = end - begin or 1e-3
    scaled = np.clip((np.arange(size // 2) - begin) / width, 0, 1)  # (R/2,)
    return frequencies * (1 - scaled + scaled / scaling), 0.1 * math.log(scaling) + 1


def rope_rotation(positions: Array, options: Options, dtype: npt.DTypeLike) -> Rotation:
    """Cosine and sine of RoPE's angles, each (B, 1, T, R/2) with an axis for the heads.

    Both are multiplied by the length of rotated points, which is 1 except with YaRN.
    """
    frequencies, length = rope_frequencies(options)
    angles = positions[..., None, :, None] * frequencies  # (B, 1, T, R/2)
    return (length * np.cos(angles)).astype(dtype), (length * np.sin(angles)).astype(dtype)


def rope_forward(x: Array, rotation: Rotation) -> tuple[Array, Cache]:
    """Rotate queries or keys, (B, H, T, D) to (B, H, T, D).

    Channels i and i + R/2 are the coordinates of one point, as in transformers' Llama; those from R
    on stay.
    """
    cosine, sine = rotation  # (B, 1, T, R/2)
    return _rotate(x, cosine, sine), rotation


def rope_backward(dout: Array, cache: Cache) -> Array:
    """Multiply by the transpose, (B, H, T, D) to (B, H, T, D): that of a rotation rotates back."""
    cosine, sine = cache
    return _rotate(dout, cosine, -sine)


def _rotate(x: Array, cosine: Array, sine: Array) -> Array:
    half = cosine.shape[-1]
    first, second, rest = np.split(x, (half, 2 * half), axis=-1)  # (B, H, T, R/2), and (..., D - R)
    return np.concatenate(
        (first * cosine - second * sine, second * cosine + first * sine, rest), axis=-1
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
