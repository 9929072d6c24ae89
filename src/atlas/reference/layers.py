"""Layers that work on each token by itself: linear, embedding, softmax, norms, activations.

The weights of a model are one dict with PyTorch's names. A layer gets its own, without the prefix::

    parameters                              {"blocks.0.attention.query.weight": ..., ...}
    sub_parameters(parameters, "blocks.0")  {"attention.query.weight": ..., ...}
    join({"blocks.0": gradients})           {"blocks.0.attention.query.weight": ..., ...}

Legend: B batch, T time, C channels, V vocabulary, N tokens (B*T); ``...`` any axes.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Scalar = np.floating[Any]  # a loss, in the dtype of the logits
Parameters = dict[str, Array]
Gradients = dict[str, Array]  # of the loss, with the keys and shapes of the parameters
Cache = Any  # values of the forward pass that only its backward pass reads


def sub_parameters(parameters: Parameters, name: str) -> Parameters:
    """Select the weights of the layer ``name``, and remove the prefix from their names."""
    prefix = f"{name}."
    selected = (key for key in parameters if key.startswith(prefix))
    return {key.removeprefix(prefix): parameters[key] for key in selected}


def join(layers: Mapping[str, Gradients]) -> Gradients:
    """Join the gradients of layers, named as in the model: the inverse of ``sub_parameters``."""
    return {
        f"{name}.{key}": array for name, layer in layers.items() for key, array in layer.items()
    }


def flatten_tokens(x: Array) -> Array:
    """Flatten (..., C) to (N, C), so that a matrix product is one BLAS call."""
    return x.reshape(-1, x.shape[-1])


# Linear layer, with the weight as (out, in) as in PyTorch.
#
#     out = x W^T + b        dx = dout W        dW = dout^T x        db = sum of dout over tokens


def linear_forward(x: Array, parameters: Parameters) -> tuple[Array, Cache]:
    """Map (..., in) to (..., out) with ``weight`` (out, in) and an optional ``bias`` (out,)."""
    weight = parameters["weight"]  # (out, in)
    out = flatten_tokens(x) @ weight.T  # (N, out)
    if "bias" in parameters:
        out += parameters["bias"]
    return out.reshape(*x.shape[:-1], len(weight)), (x, parameters)


def linear_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (..., in), and of the weights."""
    x, parameters = cache
    dout_flat = flatten_tokens(dout)  # (N, out)
    gradients = {"weight": dout_flat.T @ flatten_tokens(x)}  # (out, in)
    if "bias" in parameters:
        gradients["bias"] = dout_flat.sum(0)  # (out,)
    dx = dout_flat @ parameters["weight"]  # (N, in)
    return dx.reshape(x.shape), gradients


# Embedding: a linear layer on one-hot vectors, which selects rows of its weight. The gradient of a
# row is the sum over all tokens that selected it.


def embedding_forward(ids: Array, parameters: Parameters) -> tuple[Array, Cache]:
    """Look up ids (B, T) in the rows of ``weight`` (V, C): (B, T, C)."""
    weight = parameters["weight"]
    return weight[ids], (ids, weight)


def embedding_backward(dout: Array, cache: Cache) -> Gradients:
    """Return the gradient of the weight; ids have none."""
    ids, weight = cache
    dweight = np.zeros_like(weight)  # (V, C)
    np.add.at(dweight, ids, dout)  # unlike dweight[ids] += dout, this adds up repeated ids
    return {"weight": dweight}


# Softmax over the last axis.
#
#     out_i = exp(x_i) / sum_j exp(x_j)        dx_i = out_i (dout_i - sum_j dout_j out_j)


def softmax_forward(x: Array) -> tuple[Array, Cache]:
    """Turn (..., V) into probabilities; -inf gets 0; each row needs a finite value."""
    out = np.exp(x - x.max(-1, keepdims=True))  # subtracting the maximum prevents overflow
    out /= out.sum(-1, keepdims=True)
    return out, out


def softmax_backward(dout: Array, cache: Cache) -> Array:
    """Return the gradient of x, (..., V)."""
    out = cache
    dx: Array = out * (dout - np.vecdot(dout, out)[..., None])
    return dx


# Norms over C channels, with a learned scale per channel.
#
#     LayerNorm   n = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps)     out = n * weight + bias
#     RMSNorm     n = x / sqrt(mean(x^2) + eps)                             out = n * weight
#
# The divisor depends on every channel, so the gradient loses its component along n:
#
#     LayerNorm   dx = (dn - mean(dn) - n mean(dn n)) / divisor
#     RMSNorm     dx = (dn - n mean(dn n)) / divisor


def layer_norm_forward(x: Array, parameters: Parameters, eps: float) -> tuple[Array, Cache]:
    """LayerNorm (arXiv:1607.06450): (..., C) to (..., C); ``bias`` (C,) is optional."""
    centered = x - x.mean(-1, keepdims=True)
    divisor = np.sqrt(_mean_product(centered, centered) + eps)  # (..., 1)
    normed = centered / divisor
    out = normed * parameters["weight"]
    if "bias" in parameters:
        out += parameters["bias"]
    return out, (normed, divisor, parameters)


def layer_norm_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (..., C), and of the weights."""
    normed, divisor, parameters = cache
    dnormed = dout * parameters["weight"]
    dx = dnormed - dnormed.mean(-1, keepdims=True)
    dx -= normed * _mean_product(dnormed, normed)
    dx /= divisor
    gradients = {"weight": flatten_tokens(dout * normed).sum(0)}  # (C,)
    if "bias" in parameters:
        gradients["bias"] = flatten_tokens(dout).sum(0)  # (C,)
    return dx, gradients


def rms_norm_forward(x: Array, parameters: Parameters, eps: float) -> tuple[Array, Cache]:
    """RMSNorm (arXiv:1910.07467): (..., C) to (..., C)."""
    divisor = np.sqrt(_mean_product(x, x) + eps)  # (..., 1)
    normed = x / divisor
    return normed * parameters["weight"], (normed, divisor, parameters)


def rms_norm_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (..., C), and of the weight."""
    normed, divisor, parameters = cache
    dnormed = dout * parameters["weight"]
    dx = dnormed - normed * _mean_product(dnormed, normed)
    dx /= divisor
    return dx, {"weight": flatten_tokens(dout * normed).sum(0)}  # (C,)


def _mean_product(x: Array, y: Array) -> Array:
    """Mean of x * y over the channels: (..., C) and (..., C) to (..., 1)."""
    mean: Array = np.vecdot(x, y)[..., None] / x.shape[-1]
    return mean


NormForward = Callable[[Array, Parameters, float], tuple[Array, Cache]]
NormBackward = Callable[[Array, Cache], tuple[Array, Gradients]]
NORMS: Mapping[str, tuple[NormForward, NormBackward]] = {
    "layernorm": (layer_norm_forward, layer_norm_backward),
    "rmsnorm": (rms_norm_forward, rms_norm_backward),
}


# Activations: elementwise, so the backward pass multiplies by the derivative. To add one, write the
# pair and enter it in ACTIVATIONS, or in GATES if it is only used as a gate.

GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """ReLU: max(x, 0)."""
    return np.maximum(x, 0), x


def relu_backward(dout: Array, cache: Cache) -> Array:
    """Multiply by the derivative: 1 above 0, else 0."""
    x = cache
    dx: Array = dout * (x > 0)
    return dx


def relu2_forward(x: Array) -> tuple[Array, Cache]:
    """ReLU^2 (arXiv:2109.08668): max(x, 0)^2."""
    positive = np.maximum(x, 0)
    return positive * positive, positive


def relu2_backward(dout: Array, cache: Cache) -> Array:
    """Multiply by the derivative, 2 max(x, 0)."""
    positive = cache
    dx: Array = dout * (2 * positive)
    return dx


def gelu_forward(x: Array) -> tuple[Array, Cache]:
    """GELU (arXiv:1606.08415): x times the normal distribution function of x, approximated.

    0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), as in GPT-2.
    """
    tanh = np.tanh(GELU_SCALE * x * (1 + GELU_CUBIC * x * x))
    return 0.5 * x * (1 + tanh), (x, tanh)


def gelu_backward(dout: Array, cache: Cache) -> Array:
    """Multiply by the derivative, 0.5 (1 + tanh(u)) + 0.5 x (1 - tanh(u)^2) du/dx."""
    x, tanh = cache
    du = GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x)
    dx: Array = dout * (0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * du)
    return dx


def silu_forward(x: Array) -> tuple[Array, Cache]:
    """SiLU (arXiv:1702.03118): x * sigmoid(x)."""
    sigmoid = 0.5 * (1 + np.tanh(0.5 * x))  # 1 / (1 + exp(-x)) without overflow
    return x * sigmoid, (x, sigmoid)


def silu_backward(dout: Array, cache: Cache) -> Array:
    """Multiply by the derivative, s + x s (1 - s) with s = sigmoid(x)."""
    x, sigmoid = cache
    dx: Array = dout * sigmoid * (1 + x * (1 - sigmoid))
    return dx


ActivationForward = Callable[[Array], tuple[Array, Cache]]
ActivationBackward = Callable[[Array, Cache], Array]
ACTIVATIONS: Mapping[str, tuple[ActivationForward, ActivationBackward]] = {
    "relu": (relu_forward, relu_backward),
    "relu2": (relu2_forward, relu2_backward),
    "gelu": (gelu_forward, gelu_backward),
    "silu": (silu_forward, silu_backward),
}
# Gated feed-forward layers (arXiv:2002.05202), with the activation of the gate.
GATES: Mapping[str, tuple[ActivationForward, ActivationBackward]] = {
    "swiglu": ACTIVATIONS["silu"],
    "geglu": ACTIVATIONS["gelu"],
}
