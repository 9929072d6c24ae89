"""The weights that training starts from, as ``atlas.model.initialise`` draws them."""

import math

import numpy as np
import numpy.typing as npt

from atlas.reference.arrays import Parameters
from atlas.reference.feed_forward import GATED
from atlas.reference.options import Options

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
        if options.qk_norm != "none":
            of_head = options.qk_norm == "head"
            for name, channels in {"query": c, "key": kv}.items():
                size = options.head_size if of_head else channels
                shapes[f"{block}.attention.{name}_norm.weight"] = (size,)
        shapes |= _norm(f"{block}.feed_forward_norm", options)
        if options.feed_forward in GATED:
            shapes |= _linear(f"{block}.feed_forward.gate", f, c, options)
        shapes |= _linear(f"{block}.feed_forward.up", f, c, options)
        shapes |= _linear(f"{block}.feed_forward.down", c, f, options)
    if options.norm_place != "post":
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
