"""Our weights under llama.cpp's names, in its order of rows.

GGUF keeps matrices as (out, in), as PyTorch does. Legend: C d_model, D head size.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.architectures import Architecture
from atlas.model.config import ModelConfig

Array = npt.NDArray[np.float32]
Read = Callable[[str], Array]

EMBEDDING_NAMES = {
    "embedding.weight": "token_embd.weight",
    "positions.weight": "position_embd.weight",
}
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
HEAD_NAMES = {"norm": "output_norm", "head": "output"}
FUSED = ("attention.query", "attention.key", "attention.value")


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file, read when it is written.

    Attributes:
        name: llama.cpp's.
        shape: of the values.
        read: gives them in float32.
    """

    name: str
    shape: tuple[int, ...]
    read: Callable[[], Array]

    @property
    def may_shrink(self) -> bool:
        """Whether a smaller type may hold it: matrices, but not positions, norms and biases."""
        return len(self.shape) == 2 and self.name != EMBEDDING_NAMES["positions.weight"]


def gguf_tensors(
    config: ModelConfig, architecture: Architecture, shapes: dict[str, tuple[int, ...]], read: Read
) -> Iterator[GgufTensor]:
    """All tensors of a GGUF file of this model.

    Args:
        config: of the model.
        architecture: the one to write it as.
        shapes: of each of our weights, by name.
        read: gives one of our weights, float32.
    """
    for ours, name in EMBEDDING_NAMES.items():
        if ours in shapes:
            yield GgufTensor(name, shapes[ours], lambda ours=ours: read(ours))  # type: ignore[misc]
    for number in range(config.n_layer):
        yield from _block(number, config, architecture, shapes, read)
    for ours, name in HEAD_NAMES.items():
        yield from _module(ours, name, architecture, shapes, read)


def _block(
    number: int,
    config: ModelConfig,
    architecture: Architecture,
    shapes: dict[str, tuple[int, ...]],
    read: Read,
) -> Iterator[GgufTensor]:
    for ours, theirs in BLOCK_NAMES.items():
        module, name = f"blocks.{number}.{ours}", f"blk.{number}.{theirs}"
        if architecture.fused_qkv and ours in FUSED:
            if ours == FUSED[0]:
                yield from _fused_qkv(number, shapes, read)
        elif architecture.adjacent_rope and ours in ("attention.query", "attention.key"):
            heads = config.n_head if ours == "attention.query" else config.n_kv_head
            yield from _module(module, name, architecture, shapes, _adjacent(read, heads))
        else:
            yield from _module(module, name, architecture, shapes, read)


def _module(
    ours: str,
    theirs: str,
    architecture: Architecture,
    shapes: dict[str, tuple[int, ...]],
    read: Read,
) -> Iterator[GgufTensor]:
    """The weight and the bias of one of our modules, of those that it has."""
    weight, bias = f"{ours}.weight", f"{ours}.bias"
    if weight not in shapes:
        return
    yield GgufTensor(f"{theirs}.weight", shapes[weight], lambda: read(weight))
    rows = shapes[weight][0]
    if bias in shapes:
        yield GgufTensor(f"{theirs}.bias", shapes[bias], lambda: read(bias))
    elif architecture.always_bias and ours != "head":
        yield GgufTensor(f"{theirs}.bias", (rows,), lambda: np.zeros(rows, np.float32))


def _fused_qkv(number: int, shapes: dict[str, tuple[int, ...]], read: Read) -> Iterator[GgufTensor]:
    """Queries, keys and values one below the other, with zeros where there is no bias."""
    weights = [f"blocks.{number}.{module}.weight" for module in FUSED]
    biases = [f"blocks.{number}.{module}.bias" for module in FUSED]
    rows = sum(shapes[weight][0] for weight in weights)
    name = f"blk.{number}.attn_qkv"

    def fused_bias() -> Array:
        if biases[0] not in shapes:
            return np.zeros(rows, np.float32)
        return np.concatenate([read(bias) for bias in biases])

    yield GgufTensor(
        f"{name}.weight",
        (rows, shapes[weights[0]][1]),
        lambda: np.concatenate([read(weight) for weight in weights]),
    )
    yield GgufTensor(f"{name}.bias", (rows,), fused_bias)


def _adjacent(read: Read, heads: int) -> Read:
    """Reorders the rows of each head so that RoPE's pairs lie side by side.

    Ours turns rows i and i + D/2 of a head together, llama.cpp's `llama` rows 2i and 2i + 1.
    """

    def permuted(name: str) -> Array:
        weight = read(name)
        halves: npt.NDArray[Any] = weight.reshape(heads, 2, len(weight) // heads // 2, -1)
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(weight.shape)

    return permuted
