r"""The norms of a vector of C channels, each with a learned scale a channel.

LayerNorm (Ba et al. 2016, arXiv:1607.06450) takes the mean away and divides by the standard
deviation; RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) divides by the root mean square::

    LayerNorm   n = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)     out = n * weight + bias
    RMSNorm     n = x / sqrt(mean(x^2) + eps)                             out = n * weight

The divisor depends on every channel, and its part of the gradient is what dn has along n::

    LayerNorm   dx = (dn - mean(dn) - n mean(dn n)) / divisor
    RMSNorm     dx = (dn - n mean(dn n)) / divisor
"""

from collections.abc import Callable, Mapping

import numpy as np

from atlas.reference.arrays import Array, Cache, Gradients, Parameters, rows


def layer_norm_forward(x: Array, parameters: Parameters, eps: float) -> tuple[Array, Cache]:
    """(..., C) to (..., C); ``weight`` is (C,), ``bias`` (C,) may be absent."""
    centred = x - x.mean(-1, keepdims=True)
    divisor = np.sqrt(_mean_of_product(centred, centred) + eps)  # (..., 1)
    normed = centred / divisor
    out = normed * parameters["weight"]
    if "bias" in parameters:
        out += parameters["bias"]
    return out, (normed, divisor, parameters)


def layer_norm_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """(..., C) to (..., C), and the gradients of the weights."""
    normed, divisor, parameters = cache
    dnormed = dout * parameters["weight"]
    dx = dnormed - dnormed.mean(-1, keepdims=True)
    dx -= normed * _mean_of_product(dnormed, normed)
    dx /= divisor
    gradients = {"weight": rows(dout * normed).sum(0)}  # (C,)
    if "bias" in parameters:
        gradients["bias"] = rows(dout).sum(0)  # (C,)
    return dx, gradients


def rms_norm_forward(x: Array, parameters: Parameters, eps: float) -> tuple[Array, Cache]:
    """(..., C) to (..., C); ``weight`` is (C,)."""
    divisor = np.sqrt(_mean_of_product(x, x) + eps)  # (..., 1)
    normed = x / divisor
    return normed * parameters["weight"], (normed, divisor, parameters)


def rms_norm_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """(..., C) to (..., C), and the gradient of the weight."""
    normed, divisor, parameters = cache
    dnormed = dout * parameters["weight"]
    dx = dnormed - normed * _mean_of_product(dnormed, normed)
    dx /= divisor
    return dx, {"weight": rows(dout * normed).sum(0)}  # (C,)


def _mean_of_product(x: Array, y: Array) -> Array:
    """The mean of x * y over the channels: two times (..., C) to (..., 1)."""
    mean: Array = np.vecdot(x, y)[..., None] / x.shape[-1]
    return mean


Forward = Callable[[Array, Parameters, float], tuple[Array, Cache]]
Backward = Callable[[Array, Cache], tuple[Array, Gradients]]
NORMS: Mapping[str, tuple[Forward, Backward]] = {
    "layernorm": (layer_norm_forward, layer_norm_backward),
    "rmsnorm": (rms_norm_forward, rms_norm_backward),
}
