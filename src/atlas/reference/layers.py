"""Activations: one number in, one number out.

ReLU    max(x, 0)
ReLU^2  max(x, 0)^2 (So et al. 2021, arXiv:2109.08668)
GELU    x * (share of a normal distribution below x) (arXiv:1606.08415), in its tanh form
        0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
SiLU    x * sigmoid(x) (arXiv:1702.03118)

Arrays, and weights by name.

The weights of a model are one dict from PyTorch's names to arrays. A part of the model sees its
own, under shorter names::

    parameters                      {"blocks.0.attention.query.weight": ..., ...}
    part(parameters, "blocks.0")    {"attention.query.weight": ..., ...}
    whole("blocks.0", gradients)    and back

Linear layer and embedding.

Linear, with the weight as (out, in), as PyTorch stores it::

    out = x W^T + b        dx = dout W        dW = dout^T x        db = sum of dout over tokens

An embedding is a linear layer on one-hot rows: it picks rows of its weight, and a row's gradient
is the sum over the places that picked it.

Softmax over the last axis.

    out_i = exp(x_i) / sum_j exp(x_j)        dx_i = out_i (dout_i - sum_j dout_j out_j)

Taking the largest x from all of them changes nothing but keeps exp from overflowing.

The norms of a vector of C channels, each with a learned scale a channel.

LayerNorm (Ba et al. 2016, arXiv:1607.06450) takes the mean away and divides by the standard
deviation; RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) divides by the root mean square::

    LayerNorm   n = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)     out = n * weight + bias
    RMSNorm     n = x / sqrt(mean(x^2) + eps)                             out = n * weight

The divisor depends on every channel, and its part of the gradient is what dn has along n::

    LayerNorm   dx = (dn - mean(dn) - n mean(dn n)) / divisor
    RMSNorm     dx = (dn - n mean(dn n)) / divisor
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Scalar = np.floating[Any]  # a loss: of the dtype of the logits
Parameters = dict[str, Array]
Gradients = dict[str, Array]  # of the loss, with the keys and shapes of the parameters
Cache = Any  # what a forward pass keeps for its backward pass, and no one else's business


def part(parameters: Parameters, name: str) -> Parameters:
    """The weights of the part ``name``, their names without it."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): array
        for key, array in parameters.items()
        if key.startswith(prefix)
    }


def whole(name: str, gradients: Gradients) -> Gradients:
    """The gradients of the part ``name`` under their names in the whole: undoes ``part``."""
    return {f"{name}.{key}": array for key, array in gradients.items()}


def rows(x: Array) -> Array:
    """(..., C) to (N, C): one row a token, so that a product is one call of BLAS."""
    return x.reshape(-1, x.shape[-1])


def linear_forward(x: Array, parameters: Parameters) -> tuple[Array, Cache]:
    """(..., in) to (..., out); ``weight`` is (out, in), ``bias`` (out,) may be absent."""
    weight = parameters["weight"]  # (out, in)
    out = rows(x) @ weight.T  # (N, out)
    if "bias" in parameters:
        out += parameters["bias"]
    return out.reshape(*x.shape[:-1], len(weight)), (x, parameters)


def linear_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """(..., out) to (..., in), and the gradients of the weights."""
    x, parameters = cache
    dout_rows = rows(dout)  # (N, out)
    gradients = {"weight": dout_rows.T @ rows(x)}  # (out, in)
    if "bias" in parameters:
        gradients["bias"] = dout_rows.sum(0)  # (out,)
    dx = dout_rows @ parameters["weight"]  # (N, in)
    return dx.reshape(x.shape), gradients


def embedding_forward(ids: Array, parameters: Parameters) -> tuple[Array, Cache]:
    """The rows (B, T, C) that ids (B, T) pick of ``weight`` (V, C)."""
    weight = parameters["weight"]
    return weight[ids], (ids, weight)


def embedding_backward(dout: Array, cache: Cache) -> Gradients:
    """(B, T, C) to the gradient of the weight; ids have none."""
    ids, weight = cache
    dweight = np.zeros_like(weight)  # (V, C)
    np.add.at(dweight, ids, dout)  # unlike dweight[ids] += dout, it counts repeated ids
    return {"weight": dweight}


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


NormForward = Callable[[Array, Parameters, float], tuple[Array, Cache]]
NormBackward = Callable[[Array, Cache], tuple[Array, Gradients]]
NORMS: Mapping[str, tuple[NormForward, NormBackward]] = {
    "layernorm": (layer_norm_forward, layer_norm_backward),
    "rmsnorm": (rms_norm_forward, rms_norm_backward),
}


GELU_SLOPE = math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """ReLU: max(x, 0)."""
    return np.maximum(x, 0), x


def relu_backward(dout: Array, cache: Cache) -> Array:
    """The slope is 1 above 0, else 0."""
    x = cache
    dx: Array = dout * (x > 0)
    return dx


def relu2_forward(x: Array) -> tuple[Array, Cache]:
    """ReLU^2: max(x, 0)^2."""
    positive = np.maximum(x, 0)
    return positive * positive, positive


def relu2_backward(dout: Array, cache: Cache) -> Array:
    """The slope is 2 max(x, 0)."""
    positive = cache
    dx: Array = dout * (2 * positive)
    return dx


def gelu_forward(x: Array) -> tuple[Array, Cache]:
    """GELU: 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3)."""
    tanh = np.tanh(GELU_SLOPE * x * (1 + GELU_CUBE * x * x))
    return 0.5 * x * (1 + tanh), (x, tanh)


def gelu_backward(dout: Array, cache: Cache) -> Array:
    """The slope is 0.5 (1 + tanh(u)) + 0.5 x (1 - tanh(u)^2) du/dx."""
    x, tanh = cache
    du = GELU_SLOPE * (1 + 3 * GELU_CUBE * x * x)
    dx: Array = dout * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * du)
    return dx


def silu_forward(x: Array) -> tuple[Array, Cache]:
    """SiLU: x * sigmoid(x)."""
    sigmoid = 0.5 * (1 + np.tanh(0.5 * x))  # 1 / (1 + exp(-x)), and no exp that overflows
    return x * sigmoid, (x, sigmoid)


def silu_backward(dout: Array, cache: Cache) -> Array:
    """The slope is s + x s (1 - s) with s = sigmoid(x)."""
    x, sigmoid = cache
    dx: Array = dout * sigmoid * (1 + x * (1 - sigmoid))
    return dx


Elementwise = Callable[[Array], tuple[Array, Cache]]
ElementwiseBackward = Callable[[Array, Cache], Array]
ACTIVATIONS: Mapping[str, tuple[Elementwise, ElementwiseBackward]] = {
    "relu": (relu_forward, relu_backward),
    "relu2": (relu2_forward, relu2_backward),
    "gelu": (gelu_forward, gelu_backward),
    "silu": (silu_forward, silu_backward),
}
