"""Activations: one number in, one number out.

ReLU    max(x, 0)
ReLU^2  max(x, 0)^2 (So et al. 2021, arXiv:2109.08668)
GELU    x * (share of a normal distribution below x) (arXiv:1606.08415), in its tanh form
        0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
SiLU    x * sigmoid(x) (arXiv:1702.03118)
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from atlas.reference.arrays import Array, Cache

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


Forward = Callable[[Array], tuple[Array, Cache]]
Backward = Callable[[Array, Cache], Array]
ACTIVATIONS: Mapping[str, tuple[Forward, Backward]] = {
    "relu": (relu_forward, relu_backward),
    "relu2": (relu2_forward, relu2_backward),
    "gelu": (gelu_forward, gelu_backward),
    "silu": (silu_forward, silu_backward),
}
