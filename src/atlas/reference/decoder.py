"""The decoder: ids to logits, the gradient of every weight, and greedy generation.

    ids (B, T) -> embedding (+ positions) -> n_layer blocks -> norm -> head -> logits (B, T, V)

The weights have the same names as those of ``atlas.model``::

    embedding.weight (V, C)    positions.weight (context_length, C)
    blocks.{i}.attention_norm  blocks.{i}.attention.query|key|value|output
    blocks.{i}.attention.query_norm|key_norm
    blocks.{i}.feed_forward_norm  blocks.{i}.feed_forward.gate|up|down
    norm                       head.weight (V, C)

Legend: B batch, T time, C channels, H heads, V vocabulary.
"""

import math

import numpy as np
import numpy.typing as npt

from atlas.reference.block import block_backward, block_forward
from atlas.reference.layers import (
    GATES,
    NORMS,
    Array,
    Cache,
    Gradients,
    Parameters,
    embedding_backward,
    embedding_forward,
    join,
    linear_backward,
    linear_forward,
    sub_parameters,
)
from atlas.reference.options import Options
from atlas.reference.positions import (
    attention_mask,
    rope_rotation,
    sinusoidal_table,
    token_positions,
)

RESIDUALS_PER_BLOCK = 2  # attention and feed-forward


def initialize(options: Options, seed: int, dtype: npt.DTypeLike = np.float32) -> Parameters:
    """Initialize the weights of a decoder; the same seed gives the same weights.

    Matrices and embeddings are normal with a variance of 2 / (5 C) (SmallInit, arXiv:1910.05895).
    Those that write to the residual stream are divided by the square root of the number of
    residual connections, so that the stream does not grow with depth (GPT-2, section 2.3). Biases
    are 0, norm weights are 1.
    """
    generator = np.random.default_rng(seed)
    base_std = math.sqrt(2 / (5 * options.d_model))
    parameters: Parameters = {}
    for name, shape in parameter_shapes(options).items():
        if name.endswith(".bias"):
            parameters[name] = np.zeros(shape, dtype)
        elif len(shape) == 1:
            parameters[name] = np.ones(shape, dtype)
        else:
            std = base_std
            if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                std /= math.sqrt(RESIDUALS_PER_BLOCK * options.n_layer)
            parameters[name] = generator.normal(0, std, shape).astype(dtype)
    return parameters


def parameter_shapes(options: Options) -> dict[str, tuple[int, ...]]:
    """Shape of every weight by name; a tied head has none of its own."""
    c, f = options.d_model, options.d_ff
    q, kv = options.n_head * options.head_size, options.n_kv_head * options.head_size
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (options.vocab_size, c)}
    if options.positions == "learned":
        shapes["positions.weight"] = (options.context_length, c)
    for index in range(options.n_layer):
        block = f"blocks.{index}"
        shapes |= _norm(f"{block}.attention_norm", options)
        for name, rows in {"query": q, "key": kv, "value": kv}.items():
            shapes |= _linear(f"{block}.attention.{name}", rows, c, options.has_bias("qkv"))
        shapes |= _linear(f"{block}.attention.output", c, q, options.has_bias("linear"))
        if options.qk_norm:
            for name, channels in {"query": q, "key": kv}.items():
                size = options.head_size if options.qk_norm == "head" else channels
                shapes[f"{block}.attention.{name}_norm.weight"] = (size,)
        shapes |= _norm(f"{block}.feed_forward_norm", options)
        layers = {"gate": (f, c), "up": (f, c), "down": (c, f)}
        if options.feed_forward not in GATES:
            del layers["gate"]
        for name, shape in layers.items():
            shapes |= _linear(f"{block}.feed_forward.{name}", *shape, options.has_bias("linear"))
    if options.norm_position != "post":
        shapes |= _norm("norm", options)
    if not options.tied_head:
        shapes["head.weight"] = (options.vocab_size, c)
    return shapes


def _linear(name: str, rows: int, columns: int, bias: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (rows, columns)}
    return shapes | ({f"{name}.bias": (rows,)} if bias else {})


def _norm(name: str, options: Options) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{name}.weight": (options.d_model,)}
    has_bias = options.has_bias("norm") and options.norm == "layernorm"
    return shapes | ({f"{name}.bias": (options.d_model,)} if has_bias else {})


def decoder_forward(
    parameters: Parameters, options: Options, ids: Array, mask: Array | None = None
) -> tuple[Array, Cache]:
    """Compute the logits (B, T, V) of the token after each id.

    Args:
        parameters: weights from ``initialize``, or of a trained model.
        options: architecture.
        ids: (B, T), each from 0 to V - 1.
        mask: (B, T), True at tokens and False at padding, on any side; None without padding. The
            logits of padding are meaningless.

    Raises:
        ValueError: ids or mask have a wrong shape, type or value.
    """
    _check(options, ids, mask)
    dtype = parameters["embedding.weight"].dtype
    positions = token_positions(ids.shape[1], mask)  # (1, T) or (B, T)
    visible = attention_mask(options, positions, mask, dtype)  # (B, 1 or H, T, T)
    cache: dict[str, Cache] = {"options": options, "blocks": []}
    embedding = sub_parameters(parameters, "embedding")
    x, cache["embedding"] = embedding_forward(ids, embedding)  # (B, T, C)
    rotation = None
    match options.positions:
        case "learned":
            position_ids = np.broadcast_to(positions, ids.shape)  # (B, T)
            table = sub_parameters(parameters, "positions")
            encoding, cache["positions"] = embedding_forward(position_ids, table)
            x = x + encoding  # (B, T, C)
        case "sinusoidal":
            waves = sinusoidal_table(ids.shape[1], options.d_model).astype(dtype)  # (T, C)
            x = x + waves[positions]  # (B, T, C)
        case "rope":
            rotation = rope_rotation(positions, options, dtype)
    for index in range(options.n_layer):
        block = sub_parameters(parameters, f"blocks.{index}")
        turned = rotation if options.rotates(index) else None
        x, block_cache = block_forward(x, block, options, visible, turned)  # (B, T, C)
        cache["blocks"].append(block_cache)
    if options.norm_position != "post":
        norm_forward, _ = NORMS[options.norm]
        x, cache["norm"] = norm_forward(x, sub_parameters(parameters, "norm"), options.norm_eps)
    head = sub_parameters(parameters, "embedding" if options.tied_head else "head")
    logits, cache["head"] = linear_forward(x, head)  # (B, T, V)
    return logits, cache


def decoder_backward(dlogits: Array, cache: Cache) -> Gradients:
    """Return the gradients of all weights from that of the logits, (B, T, V)."""
    options: Options = cache["options"]
    layers: dict[str, Gradients] = {}
    dx, head = linear_backward(dlogits, cache["head"])  # (B, T, C)
    if options.norm_position != "post":
        _, norm_backward = NORMS[options.norm]
        dx, layers["norm"] = norm_backward(dx, cache["norm"])
    for index in reversed(range(options.n_layer)):
        dx, layers[f"blocks.{index}"] = block_backward(dx, cache["blocks"][index])  # (B, T, C)
    if options.positions == "learned":
        layers["positions"] = embedding_backward(dx, cache["positions"])
    layers["embedding"] = embedding_backward(dx, cache["embedding"])
    if options.tied_head:  # used twice, so both gradients add up
        layers["embedding"]["weight"] += head["weight"]
    else:
        layers["head"] = head
    return join(layers)


def attention_weights(cache: Cache) -> list[Array]:
    """Attention weights of each block, (B, H, T, T), from the cache of ``decoder_forward``."""
    return [block["attention"]["f"]["dot_product"]["weights"] for block in cache["blocks"]]


def _check(options: Options, ids: Array, mask: Array | None) -> None:
    if ids.ndim != 2 or not ids.size:
        raise ValueError(f"ids have the shape {ids.shape}; it must be (B, T), both 1 or more")
    if ids.shape[1] > options.context_length:
        raise ValueError(
            f"{ids.shape[1]} tokens are more than context_length {options.context_length}"
        )
    outside = ids[(ids < 0) | (ids >= options.vocab_size)]
    if outside.size:
        raise ValueError(f"id {outside[0]} is outside 0 to {options.vocab_size - 1}")
    if mask is None:
        return
    if mask.shape != ids.shape:
        raise ValueError(f"mask has the shape {mask.shape}, but ids have {ids.shape}")
    if mask.dtype != bool:
        raise ValueError(f"mask has dtype {mask.dtype}; it must be bool, True at tokens")
    (empty,) = np.nonzero(~mask.any(axis=1))
    if empty.size:
        raise ValueError(f"row {empty[0]} of mask is all False; every row needs a token")


def generate(
    parameters: Parameters,
    options: Options,
    prompts: Array,
    new_tokens: int,
    mask: Array | None = None,
) -> Array:
    """Generate greedily: append the most likely token, ``new_tokens`` times.

    Shorter prompts are padded on the left, where the mask (B, T) is False. Every step
    recomputes the whole text, because there is no key-value cache.

    Returns:
        The new ids, (B, new_tokens).

    Raises:
        ValueError: as in ``decoder_forward``, or the new tokens do not fit in the context.
    """
    ids = prompts
    for _ in range(new_tokens):
        logits, _ = decoder_forward(parameters, options, ids, mask)  # (B, T, V)
        newest = logits[:, -1].argmax(-1)[:, None]  # (B, 1)
        ids = np.concatenate((ids, newest), axis=1)
        if mask is not None:
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=True)
    return ids[:, prompts.shape[1] :]
