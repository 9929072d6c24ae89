"""The decoder: ids to logits, and the gradient of every weight.

    ids (B, T) -> embedding (+ positions) -> n_layer blocks -> norm -> head -> logits (B, T, V)

The weights have the names of ``atlas.model``'s::

    embedding.weight (V, C)    positions.weight (context_length, C)
    blocks.{i}.attention_norm  blocks.{i}.attention.query|key|value|output
    blocks.{i}.attention.query_norm|key_norm
    blocks.{i}.feed_forward_norm  blocks.{i}.feed_forward.gate|up|down
    norm                       head.weight (V, C)

The weights that training starts from, as ``atlas.model.initialize`` draws them.

Greedy generation: the likeliest token, again and again.
"""

import math

import numpy as np
import numpy.typing as npt

from atlas.reference.block import GATED, block_backward, block_forward
from atlas.reference.layers import (
    NORMS,
    Array,
    Cache,
    Gradients,
    Parameters,
    embedding_backward,
    embedding_forward,
    linear_backward,
    linear_forward,
    part,
    whole,
)
from atlas.reference.options import Options
from atlas.reference.positions import (
    attention_mask,
    rope_rotation,
    sinusoidal_table,
    token_positions,
)

WRITES_PER_BLOCK = 2  # into the residual stream: attention's and the feed-forward part's


def initialise(options: Options, seed: int, dtype: npt.DTypeLike = np.float32) -> Parameters:
    """Draws every weight of a decoder, the same for the same seed.

    Matrices and embeddings are normal with a variance of 2 / (5 C) ("SmallInit", Nguyen and
    Salazar 2019, arXiv:1910.05895). Those that write into the residual stream are divided by the
    root of the number of such writes, so that the stream does not grow with depth (GPT-2, section
    2.3). Biases are 0, scales of norms are 1.
    """
    generator = np.random.default_rng(seed)
    standard = math.sqrt(2 / (5 * options.d_model))
    parameters: Parameters = {}
    for name, shape in parameter_shapes(options).items():
        if name.endswith(".bias"):
            parameters[name] = np.zeros(shape, dtype)
        elif len(shape) == 1:
            parameters[name] = np.ones(shape, dtype)
        else:
            deviation = standard
            if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                deviation /= math.sqrt(WRITES_PER_BLOCK * options.n_layer)
            parameters[name] = generator.normal(0, deviation, shape).astype(dtype)
    return parameters


def parameter_shapes(options: Options) -> dict[str, tuple[int, ...]]:
    """The name and the shape of every weight of a decoder; a tied head is not counted twice."""
    c, f = options.d_model, options.d_ff
    kv = options.n_kv_head * options.head_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (options.vocab_size, c)}
    if options.positions == "learned":
        shapes["positions.weight"] = (options.context_length, c)
    for index in range(options.n_layer):
        block = f"blocks.{index}"
        shapes |= _norm(f"{block}.attention_norm", options)
        for name, rows in {"query": c, "key": kv, "value": kv, "output": c}.items():
            shapes |= _linear(f"{block}.attention.{name}", rows, c, options)
        if options.qk_norm:
            of_head = options.qk_norm == "head"
            for name, channels in {"query": c, "key": kv}.items():
                size = options.head_size if of_head else channels
                shapes[f"{block}.attention.{name}_norm.weight"] = (size,)
        shapes |= _norm(f"{block}.feed_forward_norm", options)
        if options.feed_forward in GATED:
            shapes |= _linear(f"{block}.feed_forward.gate", f, c, options)
        shapes |= _linear(f"{block}.feed_forward.up", f, c, options)
        shapes |= _linear(f"{block}.feed_forward.down", c, f, options)
    if options.norm_position != "post":
        shapes |= _norm("norm", options)
    if not options.tied_head:
        shapes["head.weight"] = (options.vocab_size, c)
    return shapes


def _linear(name: str, rows: int, columns: int, options: Options) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns)}
    return shapes | ({f"{name}.bias": (rows,)} if options.bias else {})


def _norm(name: str, options: Options) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (options.d_model,)}
    has_bias = options.bias and options.norm == "layernorm"
    return shapes | ({f"{name}.bias": (options.d_model,)} if has_bias else {})


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
    if options.norm_position != "post":
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
    if options.norm_position != "post":
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


def generate(
    parameters: Parameters,
    options: Options,
    prompts: Array,
    new_tokens: int,
    mask: Array | None = None,
) -> Array:
    """The ``new_tokens`` likeliest ids after each of ``prompts`` (B, T), one by one: (B, new).

    Prompts of several lengths are padded on the left, with a mask (B, T) that is False there.
    Everything is computed again for each token: what a key-value cache saves is not the point
    here.

    Raises:
        ValueError: as in ``decoder_forward``; the new tokens must fit into the context too.
    """
    ids = prompts
    for _ in range(new_tokens):
        logits, _ = decoder_forward(parameters, options, ids, mask)  # (B, T, V)
        likeliest = logits[:, -1].argmax(-1)[:, None]  # (B, 1)
        ids = np.concatenate((ids, likeliest), axis=1)
        if mask is not None:
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=True)
    return ids[:, prompts.shape[1] :]
