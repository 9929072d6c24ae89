"""Convert Atlas's weights to the tensors that llama.cpp or transformers expects.

Both store matrices as (out, in), like PyTorch; only GPT-2 in transformers has (in, out). Legend:
T context length, C d_model, H heads, K key heads, D head size, F feed-forward width.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Self

import torch
from torch import Tensor

from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.masks import sinusoidal_table
from atlas.params.runtime_support import Architecture, HuggingFaceClass

BLOCK_NAMES = {  # modules of a block: in llama.cpp, in transformers
    "attention_norm": ("attn_norm", "input_layernorm"),
    "attention.query": ("attn_q", "self_attn.q_proj"),
    "attention.key": ("attn_k", "self_attn.k_proj"),
    "attention.value": ("attn_v", "self_attn.v_proj"),
    "attention.output": ("attn_output", "self_attn.o_proj"),
    "attention.query_norm": ("attn_q_norm", "self_attn.q_norm"),
    "attention.key_norm": ("attn_k_norm", "self_attn.k_norm"),
    "feed_forward_norm": ("ffn_norm", "post_attention_layernorm"),
    "feed_forward.gate": ("ffn_gate", "mlp.gate_proj"),
    "feed_forward.up": ("ffn_up", "mlp.up_proj"),
    "feed_forward.down": ("ffn_down", "mlp.down_proj"),
}
GGUF_REORDERED = {"attention_norm": "post_attention_norm", "feed_forward_norm": "post_ffw_norm"}
HUGGING_FACE_OWN = {  # names that a class does not share with Llama
    "olmo2": {
        "attention_norm": "post_attention_layernorm",
        "feed_forward_norm": "post_feedforward_layernorm",
    },
    "starcoder2": {"feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"},
    "gpt2": {
        "attention_norm": "ln_1",
        "attention.output": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    },
}
QKV = ("attention.query", "attention.key", "attention.value")
NORMS = ("attention_norm", "feed_forward_norm", "norm")
FEED_FORWARD = ("feed_forward.gate", "feed_forward.up", "feed_forward.down")
ALL = (*QKV, "attention.output", *FEED_FORWARD, *NORMS)

Shape = tuple[int, ...]
Transform = Callable[[Tensor], Tensor]
Read = Callable[[str], Tensor]  # the stored tensor of a name
NamedRecipe = tuple[str, Callable[[Read], Tensor]]  # a tensor of the runtime, and how to make it


@dataclass
class TensorConverter:
    """Renames and transforms the tensors of a model into those that a runtime expects."""

    config: ModelConfig
    shapes: Mapping[str, Shape]  # of the stored tensors
    top: tuple[str, str, str, str]  # names of embedding, position table, last norm and head
    block: str  # prefix of a block, with {} for its number
    names: dict[str, str]  # of the modules of a block
    fused_qkv: str | None = None  # name of queries, keys and values if they are one tensor
    biased: tuple[str, ...] = ()  # modules that must have a bias; zeros for a model without
    has_positions: bool = False  # there must be a position table; zeros for a model without
    copies_head: bool = False  # a tied head is stored, too
    transposed: bool = False  # matrices of a block are (in, out)
    transforms: dict[str, Transform] = field(default_factory=dict)  # by module
    constants: dict[str, tuple[Shape, float]] = field(default_factory=dict)  # in every block

    @classmethod
    def for_gguf(
        cls, config: ModelConfig, shapes: Mapping[str, Shape], architecture: Architecture
    ) -> Self:
        """Convert to an architecture of llama.cpp."""
        top = ("token_embd", "position_embd", "output_norm", "output")
        names = {module: name for module, (name, _) in BLOCK_NAMES.items()}
        this = cls(config, shapes, top, "blk.{}", names)
        this.fused_qkv = "attn_qkv" if architecture.fused_qkv else None
        this.biased = NORMS if architecture.always_norm_bias else ()
        this.biased = ALL if architecture.always_bias else this.biased
        this.has_positions = architecture.always_positions
        this.copies_head = architecture.always_head
        if config.norm_position == "reordered":
            names |= GGUF_REORDERED
        # llama.cpp computes silu(gate) * up. With our matrix as the gate and an ``up`` of 1 this is
        # plain SiLU; with the gate times k and an ``up`` of 1/k it is almost ReLU. An architecture
        # without a gate divides its activation by k instead.
        f, c, k = config.d_ff, config.d_model, architecture.relu_scale
        relu = config.feed_forward == "relu"
        if architecture.always_gated and config.feed_forward not in GATES:
            names["feed_forward.up"] = "ffn_gate"
            this.constants["ffn_up.weight"] = ((f, c), 0.0)
            this.constants["ffn_up.bias"] = ((f,), 1 / k if relu else 1.0)
        elif relu:
            this.constants["ffn.act.scales"] = ((f,), k)
        if relu:
            this.transforms["feed_forward.up"] = partial(scale, k)
        if architecture.scales_embedding:  # the head is the same matrix, so the norm undoes it
            this.transforms["embedding"] = partial(scale, c**-0.5)
            this.transforms["norm"] = partial(scale, c**0.5)
        if architecture.adjacent_rope:
            interleave = partial(interleave_halves, config.head_size)
            this.transforms |= dict.fromkeys(QKV[:2], interleave)
        if not architecture.scales_scores:
            this.transforms["attention.query"] = partial(scale, config.head_size**0.5)
        return this

    @classmethod
    def for_hugging_face(
        cls, config: ModelConfig, shapes: Mapping[str, Shape], kind: HuggingFaceClass
    ) -> Self:
        """Convert to a class of transformers."""
        names = {module: name for module, (_, name) in BLOCK_NAMES.items()}
        names |= HUGGING_FACE_OWN.get(kind.model_type, {})
        if kind.model_type == "gpt2":  # it has as many key heads as query heads
            top = ("transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head")
            this = cls(config, shapes, top, "transformer.h.{}", names, "attn.c_attn", ALL)
            this.has_positions = this.transposed = True
            repeat = partial(repeat_heads, config.head_size, config.n_head // config.n_kv_head)
            this.transforms |= dict.fromkeys(QKV[1:], repeat)
            return this
        top = ("model.embed_tokens", "", "model.norm", "lm_head")
        this = cls(config, shapes, top, "model.layers.{}", names)
        this.biased = NORMS if config.norm == "layernorm" else ()
        if not kind.plain and config.feed_forward not in GATES:
            # activation(gate) * 1 is the activation
            names["feed_forward.up"] = "mlp.gate_proj"
            this.constants["mlp.up_proj.weight"] = ((config.d_ff, config.d_model), 0.0)
            this.constants["mlp.up_proj.bias"] = ((config.d_ff,), 1.0)
            this.biased += FEED_FORWARD
        return this

    def recipes(self) -> Iterator[NamedRecipe]:
        """List all tensors in the order of a GGUF file, each contiguous and in float32.

        With a recipe for each, a file can be written with one tensor in memory at a time.
        """
        embedding, positions, norm, head = self.top
        yield from self._module("embedding", embedding)
        yield from self._positions(f"{positions}.weight")
        for number in range(self.config.n_layer):
            for name, recipe in self._block(f"blocks.{number}.", self.block.format(number)):
                yield name, partial(_transposed, recipe) if self.transposed else recipe
        yield from self._module("norm", norm)
        yield from self._module("head", head)
        if self.config.tied_head and self.copies_head:
            yield from self._module("embedding", head)

    def _positions(self, name: str) -> Iterator[NamedRecipe]:
        shape = (self.config.context_length, self.config.d_model)
        match self.config.positions:
            case "learned":
                yield name, lambda read: read("positions.weight")
            case "sinusoidal":
                yield name, lambda _: sinusoidal_table(*shape)
            case "none" if self.has_positions:
                yield name, partial(_constant, shape, 0.0)

    def _block(self, ours: str, theirs: str) -> Iterator[NamedRecipe]:
        for module, name in self.names.items():
            if not (self.fused_qkv and module in QKV):
                yield from self._module(module, f"{theirs}.{name}", ours)
            elif module == QKV[0]:
                yield from self._fused_qkv(f"{theirs}.{self.fused_qkv}", ours)
        for name, constant in self.constants.items():
            yield f"{theirs}.{name}", partial(_constant, *constant)

    def _fused_qkv(self, theirs: str, block: str) -> Iterator[NamedRecipe]:
        """Stack queries, keys and values into one tensor."""
        modules = [self._module(module, theirs, block) for module in QKV]
        for (name, query), (_, key), (_, value) in zip(*modules, strict=True):
            yield name, partial(_stacked, (query, key, value))

    def _module(self, ours: str, theirs: str, block: str = "") -> Iterator[NamedRecipe]:
        """Weight and bias of a module; a bias that only the runtime has is zero."""
        weight, bias = f"{block}{ours}.weight", f"{block}{ours}.bias"
        transform = self.transforms.get(ours, Tensor.contiguous)
        if weight in self.shapes:
            yield f"{theirs}.weight", lambda read: transform(read(weight))
        if bias in self.shapes:
            yield f"{theirs}.bias", lambda read: transform(read(bias))
        elif weight in self.shapes and ours in self.biased:
            length = self.shapes[weight][0]
            yield f"{theirs}.bias", lambda _: transform(torch.zeros(length))


def scale(factor: float, values: Tensor) -> Tensor:
    """Multiply by a factor."""
    return values * factor


def interleave_halves(head_size: int, values: Tensor) -> Tensor:
    """Reorder the rows of each head so that the two rows of a RoPE pair are adjacent.

    Atlas rotates rows i and i + D/2 of a head together, llama.cpp's ``llama`` rows 2i and 2i + 1.
    """
    halves = values.reshape(-1, 2, head_size // 2, *values.shape[1:])  # (heads, 2, D/2, ...)
    return halves.transpose(1, 2).reshape(values.shape)


def repeat_heads(head_size: int, times: int, values: Tensor) -> Tensor:
    """Repeat each head of (K * D, ...) for the queries that share it, (H * D, ...)."""
    heads = values.reshape(-1, head_size, *values.shape[1:])  # (K, D, ...)
    return heads.repeat_interleave(times, dim=0).flatten(0, 1)


def _constant(shape: Shape, value: float, _: Read) -> Tensor:
    return torch.full(shape, value)


def _transposed(recipe: Callable[[Read], Tensor], read: Read) -> Tensor:
    values = recipe(read)
    return values.T.contiguous() if values.dim() == 2 else values


def _stacked(recipes: tuple[Callable[[Read], Tensor], ...], read: Read) -> Tensor:
    return torch.cat([recipe(read) for recipe in recipes])
