"""Convert Atlas's weights to the tensors that an architecture of llama.cpp expects.

GGUF stores matrices as (out, in), like PyTorch. Legend: T context length, C d_model, H heads,
D head size, F feed-forward width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from atlas.export.bundle import StoredWeights
from atlas.export.gguf.quantize import POSITIONS
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.masks import sinusoidal_table
from atlas.params.runtime_support import Architecture

BLOCK_NAMES = {
    "attention_norm": "attn_norm",
    "attention.query": "attn_q",
    "attention.key": "attn_k",
    "attention.value": "attn_v",
    "attention.output": "attn_output",
    "attention.query_norm": "attn_q_norm",
    "attention.key_norm": "attn_k_norm",
    "feed_forward_norm": "ffn_norm",
    "feed_forward.gate": "ffn_gate",
    "feed_forward.up": "ffn_up",
    "feed_forward.down": "ffn_down",
}
REORDERED_NORM_NAMES = {
    "attention_norm": "post_attention_norm",
    "feed_forward_norm": "post_ffw_norm",
}
QKV = ("attention.query", "attention.key", "attention.value")
NORMS = ("attention_norm", "feed_forward_norm", "norm")

Transform = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file; ``read`` returns its values as a contiguous float32 array."""

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def scale(factor: float) -> Transform:
    """Multiply by a factor."""
    return lambda values: values * factor


def interleave_halves(head_size: int) -> Transform:
    """Reorder the rows of each head so that the two rows of a RoPE pair are adjacent.

    Atlas rotates rows i and i + D/2 of a head together, llama.cpp's ``llama`` rows 2i and 2i + 1.
    """

    def interleave(values: Tensor) -> Tensor:
        halves = values.reshape(-1, 2, head_size // 2, *values.shape[1:])  # (heads, 2, D/2, ...)
        return halves.transpose(1, 2).reshape(values.shape)

    return interleave


@dataclass(frozen=True)
class GgufConverter:
    """Converts a model to one architecture of llama.cpp."""

    config: ModelConfig
    architecture: Architecture
    weights: StoredWeights

    def tensors(self) -> Iterator[GgufTensor]:
        """All tensors of the file."""
        yield from self._module("embedding", "token_embd")
        yield from self._positions()
        for number in range(self.config.n_layer):
            yield from self._block(number)
        yield from self._module("norm", "output_norm")
        yield from self._module("head", "output")
        if self.config.tied_head and self.architecture.always_head:
            yield from self._module("embedding", "output")

    def _positions(self) -> Iterator[GgufTensor]:
        shape = (self.config.context_length, self.config.d_model)
        match self.config.positions:
            case "learned":
                yield GgufTensor(POSITIONS, shape, partial(self.weights.read, "positions.weight"))
            case "sinusoidal":
                yield GgufTensor(POSITIONS, shape, partial(sinusoidal_table, *shape))
            case "none" if self.architecture.always_positions:
                yield _constant(POSITIONS, shape, 0.0)

    def _block(self, number: int) -> Iterator[GgufTensor]:
        names = BLOCK_NAMES | (
            REORDERED_NORM_NAMES if self.config.norm_position == "reordered" else {}
        )
        if self._plain_as_gated:
            names |= {"feed_forward.up": "ffn_gate"}
        for ours, theirs in names.items():
            if self.architecture.fused_qkv and ours in QKV:
                if ours == QKV[0]:
                    yield from self._fused_qkv(number)
            else:
                yield from self._module(f"blocks.{number}.{ours}", f"blk.{number}.{theirs}")
        yield from self._activation_constants(number)

    @property
    def _plain_as_gated(self) -> bool:
        return self.architecture.always_gated and self.config.feed_forward not in GATES

    def _activation_constants(self, number: int) -> Iterator[GgufTensor]:
        """Constants that turn the architecture's activation into the model's.

        llama.cpp computes silu(gate) * up. With our matrix as the gate and an ``up`` of 1 this is
        plain SiLU; with the gate times k and an ``up`` of 1/k it is almost ReLU. An architecture
        without a gate divides its activation by k instead.
        """
        block, f, k = f"blk.{number}", self.config.d_ff, self.architecture.relu_scale
        relu = self.config.feed_forward == "relu"
        if self._plain_as_gated:
            yield _constant(f"{block}.ffn_up.weight", (f, self.config.d_model), 0.0)
            yield _constant(f"{block}.ffn_up.bias", (f,), 1 / k if relu else 1.0)
        elif relu:
            yield _constant(f"{block}.ffn.act.scales", (f,), k)

    def _module(self, ours: str, theirs: str) -> Iterator[GgufTensor]:
        """Weight and bias of a module; a bias that only the architecture has is zero."""
        shapes, transform = self.weights.shapes, self._transform(ours)
        for kind in ("weight", "bias"):
            name, stored = f"{theirs}.{kind}", f"{ours}.{kind}"
            if stored in shapes:
                read = partial(self._read, stored, transform)
                yield GgufTensor(name, shapes[stored], read)
            elif kind == "bias" and f"{ours}.weight" in shapes and self._needs_bias(ours):
                yield _constant(name, shapes[f"{ours}.weight"][:1], 0.0)

    def _read(self, name: str, transform: Transform | None) -> Tensor:
        values = self.weights.read(name)
        return transform(values) if transform else values

    def _needs_bias(self, ours: str) -> bool:
        if ours in ("embedding", "head") or ours.endswith(("query_norm", "key_norm")):
            return False
        is_norm = ours.endswith(NORMS)
        return self.architecture.always_bias or (is_norm and self.architecture.always_norm_bias)

    def _transform(self, ours: str) -> Transform | None:
        """Return the transform that adapts a module's weights to the architecture."""
        config, architecture = self.config, self.architecture
        match ours.split(".", 2)[-1] if ours.startswith("blocks.") else ours:
            case "embedding" if architecture.scales_embedding:
                return scale(config.d_model**-0.5)
            case "norm" if architecture.scales_embedding:  # the head is the same matrix
                return scale(config.d_model**0.5)
            case "attention.query" | "attention.key" if architecture.adjacent_rope:
                return interleave_halves(config.head_size)
            case "attention.query" if not architecture.scales_scores:
                return scale(config.head_size**0.5)
            case "feed_forward.up" if config.feed_forward == "relu":
                return scale(architecture.relu_scale)
        return None

    def _fused_qkv(self, number: int) -> Iterator[GgufTensor]:
        """Stack queries, keys and values into one tensor; zeros replace a missing bias."""
        modules = [list(self._module(f"blocks.{number}.{name}", "")) for name in QKV]
        for kind, stack in zip(("weight", "bias"), zip(*modules, strict=True), strict=False):
            shape = (sum(each.shape[0] for each in stack), *stack[0].shape[1:])
            yield GgufTensor(f"blk.{number}.attn_qkv.{kind}", shape, partial(_concatenate, stack))


def _concatenate(tensors: tuple[GgufTensor, ...]) -> Tensor:
    return torch.cat([each.read() for each in tensors])


def _constant(name: str, shape: tuple[int, ...], value: float) -> GgufTensor:
    return GgufTensor(name, shape, partial(torch.full, shape, value))
