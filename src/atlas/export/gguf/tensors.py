"""Our weights under llama.cpp's names, in its order of rows.

GGUF keeps matrices as (out, in), as PyTorch does. Legend: T context length, C d_model, H heads,
D head size, F feed-forward width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from atlas.export.gguf.changes import Change, pairs_side_by_side, times, unchanged
from atlas.export.weights import Array, ReadPart, StoredWeights
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.masks import sinusoidal_table
from atlas.params.runtime_support import Architecture

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
POSITIONS = "position_embd.weight"
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
AFTER_THE_BRANCH = {
    "attention_norm": "post_attention_norm",
    "feed_forward_norm": "post_ffw_norm",
}
QKV = ("attention.query", "attention.key", "attention.value")
NORMS = ("attention_norm", "feed_forward_norm", "norm")


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file, read part by part when it is written.

    Attributes:
        name: llama.cpp's.
        shape: of the values.
        parts: what reads them, some rows after the other, in float32.
    """

    name: str
    shape: tuple[int, ...]
    parts: Callable[[], Iterator[ReadPart]]


def may_shrink(name: str, dimensions: int) -> bool:
    """Whether a smaller type may hold a tensor: matrices, but not positions, norms and biases."""
    return dimensions == 2 and name != POSITIONS


@dataclass(frozen=True)
class Translation:
    """A model to be written as an architecture.

    Attributes:
        config: of the model.
        architecture: llama.cpp's.
        weights: ours.
    """

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
                yield self._tensor(POSITIONS, "positions.weight", unchanged)
            case "sinusoidal":
                table: Array = sinusoidal_table(*shape).numpy()
                yield GgufTensor(POSITIONS, shape, lambda: iter([lambda: table]))
            case "none" if self.architecture.always_positions:
                yield _constant(POSITIONS, shape, 0.0)

    def _block(self, number: int) -> Iterator[GgufTensor]:
        names = BLOCK_NAMES | (AFTER_THE_BRANCH if self.config.norm_position == "reordered" else {})
        if self._plain_as_gated:
            names |= {"feed_forward.up": "ffn_gate"}
        for ours, theirs in names.items():
            if self.architecture.fused_qkv and ours in QKV:
                if ours == QKV[0]:
                    yield from self._fused_qkv(number)
            else:
                yield from self._module(f"blocks.{number}.{ours}", f"blk.{number}.{theirs}")
        yield from self._beside_the_activation(number)

    @property
    def _plain_as_gated(self) -> bool:
        return self.architecture.always_gated and self.config.feed_forward not in GATES

    def _beside_the_activation(self, number: int) -> Iterator[GgufTensor]:
        """What makes another activation ours: the same for every input.

        silu(gate) * up with our matrix as the gate and an ``up`` of 1 everywhere is plain SiLU;
        with a gate that is k times as large and an ``up`` of 1/k it is nearly ReLU. Where there is
        no gate, the activation is divided by k.
        """
        block, f, scale = f"blk.{number}", self.config.d_ff, self.architecture.relu_scale
        relu = self.config.feed_forward == "relu"
        if self._plain_as_gated:
            yield _constant(f"{block}.ffn_up.weight", (f, self.config.d_model), 0.0)
            yield _constant(f"{block}.ffn_up.bias", (f,), 1 / scale if relu else 1.0)
        elif relu:
            yield _constant(f"{block}.ffn.act.scales", (f,), scale)

    def _module(self, ours: str, theirs: str) -> Iterator[GgufTensor]:
        """The weight and the bias of one of our modules, of those that it has."""
        weight, bias = f"{ours}.weight", f"{ours}.bias"
        if weight not in self.weights.shapes:
            return
        change = self._change(ours)
        yield self._tensor(f"{theirs}.weight", weight, change)
        if bias in self.weights.shapes:
            yield self._tensor(f"{theirs}.bias", bias, change)
        elif self._wants_bias(ours):
            rows = self.weights.shapes[weight][0]
            yield _constant(f"{theirs}.bias", (rows,), 0.0)

    def _tensor(self, name: str, ours: str, change: Change) -> GgufTensor:
        """One of our weights, changed."""

        def parts() -> Iterator[ReadPart]:
            for read in self.weights.parts(ours, multiple=self.config.head_size):
                yield lambda read=read: change(read())  # type: ignore[misc]

        return GgufTensor(name, self.weights.shapes[ours], parts)

    def _wants_bias(self, ours: str) -> bool:
        if ours in ("embedding", "head") or ours.endswith(("query_norm", "key_norm")):
            return False
        is_norm = ours.endswith(NORMS)
        return self.architecture.always_bias or (is_norm and self.architecture.always_norm_bias)

    def _change(self, ours: str) -> Change:
        """What has to be done to the values of a module."""
        config, architecture = self.config, self.architecture
        match ours.split(".", 2)[-1] if ours.startswith("blocks.") else ours:
            case "embedding" if architecture.scales_embedding:
                return times(config.d_model**-0.5)
            case "norm" if architecture.scales_embedding:  # the head is the same matrix
                return times(config.d_model**0.5)
            case "attention.query" | "attention.key" if architecture.adjacent_rope:
                return pairs_side_by_side(config.head_size)
            case "attention.query" if not architecture.scales_scores:
                return times(config.head_size**0.5)
            case "feed_forward.up" if config.feed_forward == "relu":
                return times(architecture.relu_scale)
        return unchanged

    def _fused_qkv(self, number: int) -> Iterator[GgufTensor]:
        """Queries, keys and values one below the other, with zeros where there is no bias."""
        modules = [f"blocks.{number}.{module}" for module in QKV]
        parts = [list(self._module(module, "")) for module in modules]
        for kind, same in zip(("weight", "bias"), zip(*parts, strict=True), strict=False):
            rows = sum(part.shape[0] for part in same)
            yield GgufTensor(
                f"blk.{number}.attn_qkv.{kind}",
                (rows, *same[0].shape[1:]),
                lambda same=same: chain.from_iterable(part.parts() for part in same),  # type: ignore[misc]
            )


def _constant(name: str, shape: tuple[int, ...], value: float) -> GgufTensor:
    return GgufTensor(name, shape, lambda: iter([lambda: np.full(shape, value, np.float32)]))
