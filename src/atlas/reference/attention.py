"""Attention: each token averages the values of the tokens it sees (arXiv:1706.03762).

    out = softmax(Q K^T / sqrt(D) + mask) V        for each head

Query head h uses key and value head h // (H/K). K = H is multi-head attention, K = 1 multi-query
(arXiv:1911.02150), and anything between grouped-query (arXiv:2305.13245).

Queries and keys may be normalized before their product (QK-norm, arXiv:2302.05442): each head by
itself, as in Qwen3, or all channels before the split into heads, as in OLMo 2.

Legend: B batch, T time, C channels, H query heads, K key and value heads, D head size.
"""

import math

import numpy as np

from atlas.reference.layers import (
    Array,
    Cache,
    Gradients,
    Parameters,
    join,
    linear_backward,
    linear_forward,
    rms_norm_backward,
    rms_norm_forward,
    softmax_backward,
    softmax_forward,
    sub_parameters,
)
from atlas.reference.options import Options
from atlas.reference.positions import Rotation, rope_backward, rope_forward


def dot_product_attention_forward(
    query: Array, key: Array, value: Array, mask: Array | None = None
) -> tuple[Array, Cache]:
    """Scaled dot-product attention.

    Args:
        query: (B, H, T, D).
        key: (B, K, T, D) with H a multiple of K.
        value: (B, K, T, D).
        mask: broadcasts to (B, H, T, T); boolean, True where a query sees a key, or a bias to add
            to the scores. Every query must see a key.

    Returns:
        (B, H, T, D), and a cache that holds the attention ``weights`` (B, H, T, T).
    """
    b, h, t, d = query.shape
    k = key.shape[1]
    query = query.reshape(b, k, h // k, t, d) * (1 / math.sqrt(d))  # (B, K, H/K, T, D)
    key, value = key[:, :, None], value[:, :, None]  # (B, K, 1, T, D)
    scores = (query @ key.swapaxes(-1, -2)).reshape(b, h, t, t)  # (B, H, T, T)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    weights, softmax_cache = softmax_forward(scores)  # (B, H, T, T)
    out = weights.reshape(b, k, h // k, t, t) @ value  # (B, K, H/K, T, D)
    cache = {"query": query, "key": key, "value": value, "weights": weights}
    return out.reshape(b, h, t, d), cache | {"softmax": softmax_cache}


def dot_product_attention_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Return the gradients of query, key and value from that of the output, (B, H, T, D).

    H/K query heads share a key and value head, so its gradient is a sum over them.
    """
    query, key, value = cache["query"], cache["key"], cache["value"]
    b, k, group, t, d = query.shape
    dout = dout.reshape(query.shape)  # (B, K, H/K, T, D)
    weights = cache["weights"].reshape(b, k, group, t, t)  # (B, K, H/K, T, T)
    dvalue = (weights.swapaxes(-1, -2) @ dout).sum(2)  # (B, K, T, D)
    dweights = (dout @ value.swapaxes(-1, -2)).reshape(b, k * group, t, t)  # (B, H, T, T)
    dscores = softmax_backward(dweights, cache["softmax"])  # (B, H, T, T)
    dscores = dscores.reshape(b, k, group, t, t)  # (B, K, H/K, T, T)
    dkey = (dscores.swapaxes(-1, -2) @ query).sum(2)  # (B, K, T, D)
    dquery = (dscores @ key) * (1 / math.sqrt(d))  # (B, K, H/K, T, D)
    return dquery.reshape(b, k * group, t, d), dkey, dvalue


def attention_forward(
    x: Array, parameters: Parameters, options: Options, mask: Array, rotation: Rotation | None
) -> tuple[Array, Cache]:
    """Attend from x, (B, T, C), with a mask from ``attention_mask`` and RoPE's rotation, if any."""
    query, query_cache = _heads_forward(x, parameters, "query", options, rotation)  # (B, H, T, D)
    key, key_cache = _heads_forward(x, parameters, "key", options, rotation)  # (B, K, T, D)
    value, value_cache = linear_forward(x, sub_parameters(parameters, "value"))  # (B, T, K*D)
    value = split_heads(value, options.head_size)  # (B, K, T, D)
    mixed, dot_product_cache = dot_product_attention_forward(
        query, key, value, mask
    )  # (B, H, T, D)
    out, output_cache = linear_forward(merge_heads(mixed), sub_parameters(parameters, "output"))
    cache = {"query": query_cache, "key": key_cache, "value": value_cache, "output": output_cache}
    return out, cache | {"dot_product": dot_product_cache, "head_size": options.head_size}


def attention_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradients of x, (B, T, C), and of the weights."""
    dmerged, output = linear_backward(dout, cache["output"])  # (B, T, C)
    dmixed = split_heads(dmerged, cache["head_size"])  # (B, H, T, D)
    dquery, dkey, dvalue = dot_product_attention_backward(dmixed, cache["dot_product"])
    dx_query, query = _heads_backward(dquery, cache["query"])  # (B, T, C)
    dx_key, key = _heads_backward(dkey, cache["key"])
    dx_value, value = linear_backward(merge_heads(dvalue), cache["value"])
    gradients = query | key | join({"value": value, "output": output})
    return dx_query + dx_key + dx_value, gradients


def split_heads(x: Array, head_size: int) -> Array:
    """Split (B, T, H*D) into heads, (B, H, T, D)."""
    return x.reshape(*x.shape[:2], -1, head_size).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """Join heads (B, H, T, D) to (B, T, H*D)."""
    b, h, t, d = x.shape
    return x.swapaxes(1, 2).reshape(b, t, h * d)


def _heads_forward(
    x: Array, parameters: Parameters, name: str, options: Options, rotation: Rotation | None
) -> tuple[Array, Cache]:
    """Project (B, T, C) to queries or keys, normalize, split into heads and rotate."""
    cache: dict[str, Cache] = {"name": name, "qk_norm": options.qk_norm}
    norm = sub_parameters(parameters, f"{name}_norm")
    out, cache["linear"] = linear_forward(x, sub_parameters(parameters, name))  # (B, T, H*D)
    if options.qk_norm == "all":
        out, cache["norm"] = rms_norm_forward(out, norm, options.norm_eps)
    out = split_heads(out, options.head_size)  # (B, H, T, D)
    if options.qk_norm == "head":
        out, cache["norm"] = rms_norm_forward(out, norm, options.norm_eps)
    if rotation is not None:
        out, cache["rope"] = rope_forward(out, rotation)
    return out, cache


def _heads_backward(dout: Array, cache: Cache) -> tuple[Array, Gradients]:
    """Return the gradient of x, (B, T, C), from that of the heads, (B, H or K, T, D)."""
    layers: dict[str, Gradients] = {}
    name = cache["name"]
    if "rope" in cache:
        dout = rope_backward(dout, cache["rope"])  # (B, H, T, D)
    if cache["qk_norm"] == "head":
        dout, layers[f"{name}_norm"] = rms_norm_backward(dout, cache["norm"])
    dout = merge_heads(dout)  # (B, T, H*D)
    if cache["qk_norm"] == "all":
        dout, layers[f"{name}_norm"] = rms_norm_backward(dout, cache["norm"])
    dx, layers[name] = linear_backward(dout, cache["linear"])  # (B, T, C)
    return dx, join(layers)
