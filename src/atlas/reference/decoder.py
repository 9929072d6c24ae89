"""The decoder: ids to logits, and the gradient of every weight.

    ids (B, T) -> embedding (+ positions) -> n_layer blocks -> norm -> head -> logits (B, T, V)

The weights have the names of ``atlas.model``'s::

    embedding.weight (V, C)    positions.weight (context_length, C)
    blocks.{i}.attention_norm  blocks.{i}.attention.query|key|value|output
    blocks.{i}.attention.query_norm|key_norm
    blocks.{i}.feed_forward_norm  blocks.{i}.feed_forward.gate|up|down
    norm                       head.weight (V, C)
"""

import numpy as np

from atlas.reference.arrays import Array, Cache, Gradients, Parameters, part, whole
from atlas.reference.block import block_backward, block_forward
from atlas.reference.linear import (
    embedding_backward,
    embedding_forward,
    linear_backward,
    linear_forward,
)
from atlas.reference.mask import attention_mask
from atlas.reference.norm import NORMS
from atlas.reference.options import Options
from atlas.reference.positions import rope_rotation, sinusoidal_table, token_positions


def decoder_forward(
    parameters: Parameters, options: Options, ids: Array, mask: Array | None = None
) -> tuple[Array, Cache]:
    """Logits (B, T, V) of the token after each of ``ids`` (B, T).

    Args:
        parameters: the weights; their dtype is that of everything computed.
        options: what the decoder is.
        ids: (B, T), each from 0 to V - 1.
        mask: (B, T), True at tokens and False at padding, wherever it stands; None without
            padding. What padding gives is meaningless.

    Raises:
        ValueError: ids or mask are not such.
    """
    _check(options, ids, mask)
    dtype = parameters["embedding.weight"].dtype
    positions = token_positions(ids.shape[1], mask)  # (1, T) or (B, T)
    seen = attention_mask(options, positions, mask, dtype)  # (B, 1 or H, T, T)
    cache: dict[str, Cache] = {"options": options, "blocks": []}
    x, cache["embedding"] = embedding_forward(ids, part(parameters, "embedding"))  # (B, T, C)
    rotation = None
    match options.positions:
        case "learned":
            rows = np.broadcast_to(positions, ids.shape)  # (B, T)
            added, cache["positions"] = embedding_forward(rows, part(parameters, "positions"))
            x = x + added  # (B, T, C)
        case "sinusoidal":
            table = sinusoidal_table(ids.shape[1], options.d_model).astype(dtype)  # (T, C)
            x = x + table[positions]  # (B, T, C)
        case "rope":
            rotation = rope_rotation(
                positions, options.head_size, options.rope_theta, options.rope_scaling, dtype
            )
    for index in range(options.n_layer):
        block = part(parameters, f"blocks.{index}")
        x, block_cache = block_forward(x, block, options, seen, rotation)  # (B, T, C)
        cache["blocks"].append(block_cache)
    if options.norm_place != "post":
        norm_forward, _ = NORMS[options.norm]
        x, cache["norm"] = norm_forward(x, part(parameters, "norm"), options.norm_eps)
    head = part(parameters, "embedding" if options.tied_head else "head")
    logits, cache["head"] = linear_forward(x, head)  # (B, T, V)
    return logits, cache


def decoder_backward(dlogits: Array, cache: Cache) -> Gradients:
    """The gradient of every weight, from that of the logits (B, T, V)."""
    options: Options = cache["options"]
    gradients: Gradients = {}
    dx, head = linear_backward(dlogits, cache["head"])  # (B, T, C)
    if options.norm_place != "post":
        _, norm_backward = NORMS[options.norm]
        dx, norm = norm_backward(dx, cache["norm"])
        gradients |= whole("norm", norm)
    for index in reversed(range(options.n_layer)):
        dx, block = block_backward(dx, cache["blocks"][index])  # (B, T, C)
        gradients |= whole(f"blocks.{index}", block)
    if options.positions == "learned":
        gradients |= whole("positions", embedding_backward(dx, cache["positions"]))
    gradients |= whole("embedding", embedding_backward(dx, cache["embedding"]))
    if options.tied_head:  # used twice, so the two gradients add up
        gradients["embedding.weight"] += head["weight"]
    else:
        gradients |= whole("head", head)
    return gradients


def attention_weights(cache: Cache) -> list[Array]:
    """What each query took from each key in a forward pass: (B, H, T, T) for every block."""
    return [block["attention"]["f"]["mixed"]["weights"] for block in cache["blocks"]]


def _check(options: Options, ids: Array, mask: Array | None) -> None:
    if ids.ndim != 2 or not ids.size:
        raise ValueError(f"ids have the shape {ids.shape}: give (B, T), both 1 or more")
    if ids.shape[1] > options.context_length:
        raise ValueError(f"{ids.shape[1]} tokens, the context holds {options.context_length}")
    outside = ids[(ids < 0) | (ids >= options.vocab_size)]
    if outside.size:
        raise ValueError(f"id {outside[0]}: ids go from 0 to {options.vocab_size - 1}")
    if mask is None:
        return
    if mask.shape != ids.shape:
        raise ValueError(f"the mask has the shape {mask.shape}, ids have {ids.shape}")
    if mask.dtype != bool:
        raise ValueError(f"the mask is of {mask.dtype}: give booleans, True at tokens")
    (empty,) = np.nonzero(~mask.any(axis=1))
    if empty.size:
        raise ValueError(f"row {empty[0]} of the mask is all False: every row needs a token")
