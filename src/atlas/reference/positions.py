"""How a token knows where it stands.

learned     a row of a matrix a position, added to the embedding (an embedding of positions)
sinusoidal  a fixed row a position, added to the embedding (arXiv:1706.03762, section 3.5)
rope        queries and keys are turned by an angle that grows with the position
            (Su et al. 2021, arXiv:2104.09864), so that scores depend on distances alone
alibi       a score is lowered by the distance times the slope of its head
            (Press et al. 2021, arXiv:2108.12409)

Positions are (T,) counted from 0, or (B, T) where rows are padded.

Which keys a query sees.

A token sees itself and the tokens before it, not the padding, and with a window only so many
(sliding-window attention, as in Mistral 7B, arXiv:2310.06825). Four tokens with a window of 2::

    query 0   x . . .
    query 1   x x . .
    query 2   . x x .
    query 3   . . x x
"""

import math

import numpy as np
import numpy.typing as npt

from atlas.reference.layers import Array, Cache
from atlas.reference.options import Options


def visible_keys(positions: Array, mask: Array | None, window: int | None) -> Array:
    """(B, T, T), True where the query of the row sees the key of the column.

    Args:
        positions: (1, T) or (B, T), as ``token_positions`` gives them.
        mask: (B, T), True at tokens and False at padding; None without padding.
        window: how many tokens a token sees, itself included; None for all.
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


Rotation = tuple[Array, Array]  # cosine and sine of RoPE's angles


def token_positions(length: int, mask: Array | None) -> Array:
    """The number of tokens before each token of its row: (1, T), or (B, T) with a mask.

    ``mask`` (B, T) is True at tokens and False at padding, so padding before a token does not
    move it.
    """
    if mask is None:
        return np.arange(length)[None]  # (1, T)
    positions: Array = np.maximum(np.cumsum(mask, axis=1) - 1, 0)  # (B, T)
    return positions


def sinusoidal_table(length: int, d_model: int) -> Array:
    """The rows to add to the embedding, (T, C) in float64.

    PE[t, 2i] = sin(t / 10000^(2i/C)), PE[t, 2i+1] the cosine of the same, all divided by sqrt(C).
    The paper multiplies the embeddings by sqrt(C) instead: the proportion is the same, and the
    logits of a tied head keep their size.
    """
    channels = np.arange(d_model)  # (C,)
    angles = np.arange(length)[:, None] / 10_000 ** ((channels - channels % 2) / d_model)  # (T, C)
    table: Array = np.where(channels % 2 == 0, np.sin(angles), np.cos(angles))
    return table / math.sqrt(d_model)


def rope_rotation(
    positions: Array, head_size: int, theta: float, scaling: float, dtype: npt.DTypeLike
) -> Rotation:
    """Cosine and sine of the angles, each (..., 1, T, D/2) with the 1 for the heads.

    The angle of channel i is position / scaling * theta^(-2i/D).
    """
    rates = theta ** (-np.arange(0, head_size, 2) / head_size)  # (D/2,)
    angles = (positions / scaling)[..., None, :, None] * rates  # (..., 1, T, D/2)
    return np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)


def rope_forward(x: Array, rotation: Rotation) -> tuple[Array, Cache]:
    """Turns queries or keys (B, H, T, D).

    Channel i of the first half of a head and channel i of the second are the two coordinates of
    a point, as in Llama in transformers.
    """
    cosine, sine = rotation  # (B, 1, T, D/2)
    return _turn(x, cosine, sine), rotation


def rope_backward(dout: Array, cache: Cache) -> Array:
    """(B, H, T, D) to the same: the transpose of a rotation turns back."""
    cosine, sine = cache
    return _turn(dout, cosine, -sine)


def _turn(x: Array, cosine: Array, sine: Array) -> Array:
    first, second = np.split(x, 2, axis=-1)  # (B, H, T, D/2) each
    return np.concatenate(
        (first * cosine - second * sine, second * cosine + first * sine), axis=-1
    )  # (B, H, T, D)


def alibi_slopes(n_head: int) -> Array:
    """The slope of each head, (H,) in float64.

    For a power of two they are 2^(-8/H), its square, its cube, ... For any other number, those
    of the power m below, and then every second one of 2m, as in the paper's code::

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
    """What is added to the scores, (..., H, T, T) in float64: -slope * (query - key position)."""
    distances = positions[..., :, None] - positions[..., None, :]  # (..., T, T)
    bias: Array = -alibi_slopes(n_head)[:, None, None] * distances[..., None, :, :]
    return bias
