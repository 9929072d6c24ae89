"""Linear layer and embedding.

Linear, with the weight as (out, in), as PyTorch stores it::

    out = x W^T + b        dx = dout W        dW = dout^T x        db = sum of dout over tokens

An embedding is a linear layer on one-hot rows: it picks rows of its weight, and a row's gradient
is the sum over the places that picked it.
"""

import numpy as np

from atlas.reference.arrays import Array, Cache, Gradients, Parameters, rows


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
