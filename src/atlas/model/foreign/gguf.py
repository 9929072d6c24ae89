"""GGUF files: hyperparameters and tensors, to and from ours.

A file names an architecture of llama.cpp, which decides what is computed; keys and the tensors that
are there decide the rest (biases, a head of its own, emulated activations).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter
from torch import Tensor

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.foreign.config_keys import ConfigKeys, model_params
from atlas.model.foreign.tensors import (
    ROPE_FACTORS,
    ForeignWeights,
    Shape,
    TensorConverter,
    check_size,
    config_of,
    rope_factors,
    stored_shapes,
)
from atlas.model.masks import ALIBI_EXPONENT, ROTATIONS, rotary_frequencies
from atlas.params.runtime_support import ARCHITECTURES, NO_ROTATION, Architecture, rope_scaling
from atlas.params.schema import ROPE_OFF
from atlas.pipeline.gguf_file import Field, GGUFFile, read_gguf
from atlas.pipeline.gguf_file import Tensor as Description

SCALING_TYPES = {
    "linear": gguf.RopeScalingType.LINEAR,
    "yarn": gguf.RopeScalingType.YARN,
}
PER_LAYER = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
EMBEDDING, HEAD, POSITIONS = "token_embd.weight", "output.weight", "position_embd.weight"
HARMLESS = re.compile(
    r"vocab_size|tensor_data_layout|rope\.scaling\.finetuned|use_parallel_residual"
    r"|attention\.causal|attention\.layer_norm_(rms_)?epsilon"
)
UNUSED = re.compile(r"(?!)")
CONTEXTS = (8192, *(1 << power for power in range(5, 21)))  # of Llama 3 before scaling, perhaps
CHUNK = 1 << 24  # bytes compared at once
FLOATS = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}


def add_hyperparameters(
    writer: GGUFWriter, config: ModelConfig, architecture: Architecture
) -> None:
    """Add the keys of the architecture."""
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_kv_head)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)
    if config.norm == "rmsnorm":
        writer.add_layer_norm_rms_eps(config.norm_eps)
    else:
        writer.add_layer_norm_eps(config.norm_eps)
    if architecture.uses_rope:
        writer.add_rope_freq_base(config.rope_theta)
        writer.add_rope_dimension_count(config.rotary_channels)
        _add_scaling(writer, config)
    elif config.positions == "alibi":
        writer.add_max_alibi_bias(ALIBI_EXPONENT)


def _add_scaling(writer: GGUFWriter, config: ModelConfig) -> None:
    """Add the keys of RoPE scaling; that of Llama 3 is a tensor, and its context only a note."""
    scaling = rope_scaling(config.model_dump())
    if scaling == 1:
        return
    if config.rope_scaling_kind in SCALING_TYPES:
        writer.add_rope_scaling_type(SCALING_TYPES[config.rope_scaling_kind])
        writer.add_rope_scaling_factor(scaling)
    if config.rope_scaling_context:
        writer.add_rope_scaling_orig_ctx_len(config.rope_scaling_context)


def open_file(path: Path) -> ForeignWeights:
    """Read the keys and the names of all tensors of a GGUF file."""
    whole = {f"{row.name}.{key}" for row in ARCHITECTURES for key in PER_LAYER}
    header = read_gguf(path, whole)
    name = header.get("general.architecture")
    known = sorted({row.name for row in ARCHITECTURES})
    if name not in known:
        raise AtlasError(
            f"{path}: general.architecture is {str(name)[:80]}, which Atlas has no model for; it "
            f"imports {', '.join(known)}"
        )
    file = TensorFile(path, header)
    values = {
        key.removeprefix(f"{name}."): _plain(field)
        for key, field in header.fields.items()
        if key.startswith(f"{name}.")
    }
    keys = ConfigKeys(values, path, f"{name}.")
    options = _options(keys, name, file)
    row = _row(name, options, path)
    params = model_params(options, path)
    ignored = tuple(keys.ignored(HARMLESS))

    def converter(config: ModelConfig) -> TensorConverter:
        return TensorConverter.for_gguf(config, stored_shapes(config), row)

    rows = (*file.shapes.get(EMBEDDING, ()), 1)[0]
    check_size(params, rows, file.shapes, str(path))
    everything = converter(config_of(params, rows))
    everything.check(file.shapes, str(path), UNUSED)
    dtype = file.dtype if everything.is_exact else torch.float32
    return ForeignWeights(
        source=path,
        architecture=name,
        params=params,
        rows=rows,
        ignored=ignored,
        dtype=dtype,
        converter=converter,
        shapes=file.shapes,
        read=file.read,
    )


def _row(name: str, options: Mapping[str, Any], path: Path) -> Architecture:
    """The row of an architecture with these options; some names have several."""
    deciding = ("feed_forward", "rope_scaling_kind")
    for row in ARCHITECTURES:
        if row.name == name and all(options[key] in row.allowed[key] for key in deciding):
            return row
    chosen = ", ".join(f"{key} {options[key]}" for key in deciding)
    raise AtlasError(f"{path}: its tensors ask for {chosen}, which Atlas doesn't have in {name}")


def _plain(field: Field) -> Any:
    """The value of a key; an array of equal numbers, one for each block, is that number."""
    value = field.value
    if field.count is not None:
        return value[0] if len(value) == field.count and len(set(value)) == 1 else list(value)
    if field.kinds == (GGUFValueType.FLOAT32,):
        return float(str(np.float32(value)))  # 1e-05, not 9.99999974e-06
    return value


def _options(keys: ConfigKeys, name: str, file: "TensorFile") -> dict[str, Any]:
    """Our options for the model of a file."""
    usual = next(row for row in ARCHITECTURES if row.name == name)
    allowed = usual.allowed
    norm = allowed["norm"][0]
    width, heads = keys.number("embedding_length"), keys.number("attention.head_count")
    size = keys.number("attention.key_length", max(1, width // heads))
    keys.only("attention.value_length", size)
    key_heads = keys.number("attention.head_count_kv", heads)
    if heads % key_heads:
        keys.refuse("attention.head_count_kv", f"it must divide attention.head_count, {heads}")
    epsilon = f"attention.layer_norm_{'rms_' * (norm == 'rmsnorm')}epsilon"
    layers, context = keys.number("block_count"), keys.number("context_length")
    _check_window(keys, context)
    options = {
        "kind": "decoder",
        "d_model": width,
        "n_layer": layers,
        "n_head": heads,
        "n_kv_head": key_heads,
        "d_head": None if size * heads == width else size,
        "d_ff": keys.number("feed_forward_length"),
        "context_length": context,
        "norm": norm,
        "norm_position": allowed["norm_position"][0],
        "norm_eps": keys.real(epsilon),
        "feed_forward": _feed_forward(usual, file),
        "qk_norm": allowed["qk_norm"][0],
        "bias": _bias(file, norm),
        "tied_head": HEAD not in file.shapes or file.are_equal(HEAD, EMBEDDING),
        "window": None,
        "dropout": 0.0,
        **ROPE_OFF,
        "rope_theta": 10_000.0,
    }
    every = allowed["no_rope_every"][0]
    options["no_rope_every"] = every if every and every <= layers else None
    if usual.uses_rope:
        return options | _rope_options(keys, file, options, size)
    alibi = keys.get("attention.max_alibi_bias", ALIBI_EXPONENT if name == "refact" else 0)
    if alibi not in (0, ALIBI_EXPONENT):
        keys.refuse("attention.max_alibi_bias", f"Atlas supports {ALIBI_EXPONENT:g}")
    if name == "mpt":
        keys.only("attention.clamp_kqv", 0)
    if alibi:
        return options | {"positions": "alibi"}
    has_table = usual.always_positions or POSITIONS in file.shapes
    return options | {"positions": "learned" if has_table else "none"}


def _check_window(keys: ConfigKeys, context: int) -> None:
    """Refuse a window, unless the context fits it: no architecture has it in every block."""
    window = keys.get("attention.sliding_window", 0)
    keys.get("attention.sliding_window_pattern", None)
    if window != 0 and keys.number("attention.sliding_window") < context:
        keys.refuse("attention.sliding_window", "Atlas imports GGUF models without a window")


def _feed_forward(architecture: Architecture, file: "TensorFile") -> str:
    """Our kind of feed-forward layer; Atlas's own files emulate some (see TensorConverter)."""
    usual: str = architecture.allowed["feed_forward"][0]
    up, scales = "blk.0.ffn_up", "blk.0.ffn.act.scales"
    if scales in file.shapes:
        return "relu"
    if architecture.always_gated and f"{up}.bias" in file.shapes:
        bias = file.read(f"{up}.bias")
        if not file.read(f"{up}.weight").any():
            if (bias == 1).all():
                return "silu"
            if (bias == 1 / architecture.relu_scale).all():
                return "relu"
    return usual


def _bias(file: "TensorFile", norm: str) -> bool | str:
    """Our kind of biases: the least that has all of those in the file."""
    biased = {name.split(".")[-2] for name in file.shapes if name.endswith(".bias")}
    of_norms = norm == "layernorm" and any("norm" in name for name in biased)
    biased = {name for name in biased if "norm" not in name}
    if not biased:
        return "norm" if of_norms else False
    if biased <= {"attn_q", "attn_k", "attn_v", "attn_qkv"}:
        return "qkv_norm" if of_norms else "qkv"
    return True


def _rope_options(
    keys: ConfigKeys, file: "TensorFile", options: Mapping[str, Any], size: int
) -> dict[str, Any]:
    """Our options for RoPE."""
    turned = keys.number("rope.dimension_count", size)
    if turned % 2 or turned > size:
        keys.refuse("rope.dimension_count", f"it must be an even part of {size} channels")
    rope: dict[str, Any] = {
        "positions": "rope",
        "rope_theta": keys.real("rope.freq_base", 10_000.0),
        "rotary_share": turned / size,
        "rope_scaling": 1.0,
    }
    kind = keys.get("rope.scaling.type", "none")
    linear = keys.real("rope.scale_linear", 1.0)
    factor = keys.real("rope.scaling.factor", linear)
    before = keys.number("rope.scaling.original_context_length", options["context_length"])
    keys.only("rope.scaling.attn_factor", 1, 1.0)
    for key, usual in zip(("slow", "fast"), ROTATIONS["yarn"], strict=True):
        keys.only(f"rope.scaling.yarn_beta_{key}", usual)  # llama.cpp would ignore another
    match kind:
        case "none":
            factor = linear
        case "linear" | "yarn":
            pass
        case _:
            keys.refuse("rope.scaling.type", "Atlas supports none, linear and yarn")
    if factor >= NO_ROTATION:
        return {**rope, "positions": "none"}
    rope["rope_scaling"] = factor
    if kind == "yarn" and factor != 1:
        rope |= {"rope_scaling_kind": "yarn", "rope_scaling_context": before}
    if ROPE_FACTORS in file.shapes:
        if factor != 1:
            keys.refuse("rope.scaling.factor", f"Atlas does not combine it with {ROPE_FACTORS}")
        rope |= _llama3({**options, **rope}, file, before)
    return rope


def _llama3(options: Mapping[str, Any], file: "TensorFile", before: int) -> dict[str, Any]:
    """Find the scaling of Llama 3 that gives the factors of the frequencies in a file.

    A file has only the factors: 1 for fast pairs, the scaling for slow ones, and a blend between.
    Several settings give the same blend, so the usual ones are tried first.
    """
    factors = file.read(ROPE_FACTORS)
    if not (factors > 0).all():  # NaN fails, too
        raise AtlasError(f"{file.path}: {ROPE_FACTORS} has factors that are not above 0")
    scaling = float(factors.max())
    if scaling == 1:
        return {}
    candidates = [(context, ROTATIONS["llama3"]) for context in (before, *CONTEXTS)]
    frequencies, _ = rotary_frequencies(config_of(model_params(options, file.path), 1))
    if len(frequencies) == len(factors):
        turns = before * frequencies / (2 * math.pi)
        candidates.append((before, _fitted_turns(turns, factors.double(), scaling)))
    for context, bounds in candidates:
        found = {
            "rope_scaling": scaling,
            "rope_scaling_kind": "llama3",
            "rope_scaling_context": context,
            "rope_scaling_rotations": None if bounds == ROTATIONS["llama3"] else bounds,
        }
        if not 0 < bounds[0] < bounds[1]:
            continue
        expected = rope_factors(config_of(model_params({**options, **found}, file.path), 1))
        if expected.shape == factors.shape and torch.allclose(expected, factors, rtol=1e-4):
            return found
    raise AtlasError(
        f"{file.path}: {ROPE_FACTORS} has factors for RoPE that no scaling of Llama 3 gives"
    )


def _fitted_turns(turns: Tensor, factors: Tensor, scaling: float) -> tuple[float, float]:
    """Find the turns in the context below which pairs are scaled, and above which they are not.

    Between the bounds, the share of the frequency that is kept grows linearly with the turns.
    """
    kept = (1 / factors - 1 / scaling) / (1 - 1 / scaling)
    blended = ((kept > 1e-4) & (kept < 1 - 1e-4)).nonzero().flatten().tolist()
    fast = float(turns[kept >= 1 - 1e-4].min()) if (kept >= 1 - 1e-4).any() else math.inf
    slow = float(turns[kept <= 1e-4].max()) if (kept <= 1e-4).any() else 0.0
    if len(blended) >= 2:
        first, last = blended[0], blended[-1]
        slope = float((kept[first] - kept[last]) / (turns[first] - turns[last]))
        low = float(turns[first]) - float(kept[first]) / slope if slope else 0.0
        high = low + 1 / slope if slope else 0.0
    elif blended:  # any line through the pair that leaves the others as they are
        turn, share = float(turns[blended[0]]), float(kept[blended[0]])
        low, high = slow, slow + (turn - slow) / share
        while fast < high and low < turn:
            low = (low + turn) / 2
            high = low + (turn - low) / share
    else:
        low, high = slow, fast
    return float(f"{low:.7g}"), float(f"{high:.7g}")


class TensorFile:
    """The tensors of a GGUF file, read and dequantized one at a time."""

    def __init__(self, path: Path, header: GGUFFile) -> None:
        if header.byte_order != "little":
            raise AtlasError(f"{path}: its bytes are in big-endian order; convert the model again")
        for tensor in header.tensors:
            _check_type(path, tensor)
        self.path = path
        self._tensors = {tensor.name: tensor for tensor in header.tensors}
        self.shapes: dict[str, Shape] = {
            tensor.name: tensor.shape[::-1] for tensor in header.tensors
        }

    @property
    def dtype(self) -> torch.dtype:
        """The type of all tensors if they have 16 bits, else float32."""
        kinds = {tensor.kind for tensor in self._tensors.values()}
        return FLOATS.get(kinds.pop(), torch.float32) if len(kinds) == 1 else torch.float32

    def read(self, name: str) -> Tensor:
        """Read a tensor as float32."""
        tensor = self._tensors[name]
        data = self._bytes(tensor, 0, tensor.size)
        shape = gguf.quant_shape_to_byte_shape(tensor.shape[::-1], tensor.kind)
        values = gguf.quants.dequantize(data.reshape(shape), tensor.kind)
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    def are_equal(self, one: str, other: str) -> bool:
        """Return True if two tensors have the same type, shape and values.

        Their bytes are compared, a part at a time: nobody has checked yet if memory has room.
        """
        first, second = self._tensors[one], self._tensors.get(other)
        if second is None or (first.kind, first.shape) != (second.kind, second.shape):
            return False
        return all(
            np.array_equal(self._bytes(first, start, CHUNK), self._bytes(second, start, CHUNK))
            for start in range(0, first.size, CHUNK)
        )

    def _bytes(self, tensor: Description, start: int, count: int) -> npt.NDArray[np.uint8]:
        """Some stored bytes of a tensor."""
        count = min(count, tensor.size - start)
        return np.fromfile(self.path, np.uint8, count, offset=tensor.offset + start)


def _check_type(path: Path, tensor: Description) -> None:
    """Refuse a tensor of a type that gguf-py does not dequantize."""
    _, size = gguf.GGML_QUANT_SIZES[tensor.kind]
    try:
        gguf.quants.dequantize(np.zeros((1, size), np.uint8), tensor.kind)
    except NotImplementedError:
        raise AtlasError(
            f"{path}: tensor {tensor.name} has type {tensor.kind.name}, which gguf-py can't "
            "dequantize; get a file of another type, such as Q8_0"
        ) from None
