"""Parts of a block that keep nothing for a backward pass: N texts, C channels."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from atlas.reference.layers import Array, Parameters
from atlas.reference.options import Options

LARGE = 1 << 19  # weights from which on PyTorch's threads make up for the way to it
Change = Callable[[Array], Array]


class Linear:
    """A product with the weights of one linear layer, or of several side by side.

    Which way is fast depends on how many vectors and how large the weights are
    (docs/experiments.md).
    """

    def __init__(self, *layers: Parameters) -> None:
        self.layers = [torch.from_numpy(np.ascontiguousarray(each["weight"])) for each in layers]
        self.weight = torch.cat(self.layers).t().contiguous()  # (in, out)
        self.array = self.weight.numpy()
        self.is_large = self.weight.numel() >= LARGE
        self.bias: Array | None = None
        if "bias" in layers[0]:
            self.bias = np.concatenate([each["bias"] for each in layers])

    def __call__(self, x: Array) -> Array:
        """(N, in) to (N, out)."""
        out = self._product(x)
        if self.bias is not None:
            out += self.bias
        return out

    def _product(self, x: Array) -> Array:
        out: Array
        if len(x) == 1 and not self.is_large:
            out = x.dot(self.array)
        elif len(x) == 1 or not self.is_large:
            out = torch.mm(torch.from_numpy(x), self.weight).numpy()
        else:
            vectors = torch.from_numpy(x)
            out = torch.cat([functional.linear(vectors, each) for each in self.layers], 1).numpy()
        return out


def make_norm(parameters: Parameters, options: Options) -> Change:
    """A norm of (N, C); of no weights, as after post-norm blocks, nothing."""
    if not parameters:
        return lambda x: x
    weight, bias, eps = parameters["weight"], parameters.get("bias"), options.norm_eps
    if options.norm == "rmsnorm":
        return lambda x: rms_norm(x, weight, eps)

    def layer_norm(x: Array) -> Array:
        centred = x - np.add.reduce(x, axis=-1, keepdims=True) / x.shape[-1]
        normed = rms_norm(centred, weight, eps)
        return normed if bias is None else normed + bias

    return layer_norm


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """(..., C) to (..., C)."""
    if x.size == len(weight):  # a single vector, and its length a number of Python
        flat = x.ravel()
        normed: Array = x * (1 / math.sqrt(float(flat.dot(flat)) / flat.size + eps))
        normed *= weight
        return normed
    square = np.vecdot(x, x)  # (...)
    square /= x.shape[-1]
    square += eps
    normed = x / np.sqrt(square)[..., None]
    normed *= weight
    return normed


def pre(x: Array, norm: Change, branch: Change) -> Array:
    """The norm before the branch."""
    return x + branch(norm(x))


def post(x: Array, norm: Change, branch: Change) -> Array:
    """The norm after the branch was added."""
    return norm(x + branch(x))


def within(x: Array, norm: Change, branch: Change) -> Array:
    """The norm at the end of the branch."""
    return x + norm(branch(x))


RESIDUALS = {"pre": pre, "post": post, "reordered": within}
