"""Softmax over the last axis.

    out_i = exp(x_i) / sum_j exp(x_j)        dx_i = out_i (dout_i - sum_j dout_j out_j)

Taking the largest x from all of them changes nothing but keeps exp from overflowing.
"""

import numpy as np

from atlas.reference.arrays import Array, Cache


def softmax_forward(x: Array) -> tuple[Array, Cache]:
    """(..., N) to shares that sum to 1; an x of -inf gets none, one must be more."""
    out = np.exp(x - x.max(-1, keepdims=True))
    out /= out.sum(-1, keepdims=True)
    return out, out


def softmax_backward(dout: Array, cache: Cache) -> Array:
    """(..., N) to (..., N)."""
    out = cache
    dx: Array = out * (dout - np.vecdot(dout, out)[..., None])
    return dx
