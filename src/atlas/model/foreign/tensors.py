"""Convert Atlas's weights to the tensors of llama.cpp or transformers, and back.

Both store matrices as (out, in), like PyTorch; only GPT-2 in transformers has (in, out). Legend:
T context length, C d_model, H heads, K key heads, D head size, F feed-forward width.
"""

import math
import re
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.masks import rotary_frequencies, sinusoidal_table
from atlas.model.weights import make_model, weights_of
from atlas.params.runtime_support import Architecture, HuggingFaceClass
from atlas.params.schema import ModelParams

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
ROPE_FACTORS = "rope_freqs.weight"  # llama.cpp divides the frequencies of RoPE by these
QKV = ("attention.query", "attention.key", "attention.value")
NORMS = ("attention_norm", "feed_forward_norm", "norm")
FEED_FORWARD = ("feed_forward.gate", "feed_forward.up", "feed_forward.down")
ALL = (*QKV, "attention.output", *FEED_FORWARD, *NORMS)
TABLES = ("embedding.weight", "positions.weight", "head.weight")
MAX_EXCESS = 4  # times the values in the files; a config of more is not compared any further

FIRST_BLOCK = "blocks.0."
BLOCK = re.compile(r"^blocks\.\d+\.")

Shape = tuple[int, ...]
Read = Callable[[str], Tensor]  # the stored tensor of a name
NamedRecipe = tuple[str, Callable[[Read], Tensor]]  # a tensor of the runtime, and how to make it


class Transform(NamedTuple):
    """A change of a tensor of ours, and the change that undoes it."""

    apply: Callable[[Tensor], Tensor]
    invert: Callable[[Tensor], Tensor]
    is_exact: bool = True  # it only moves values, so that 16-bit values stay 16-bit values


SAME = Transform(Tensor.contiguous, Tensor.contiguous)


@dataclass(frozen=True)
class Part:
    """A tensor of ours in a tensor of the runtime."""

    ours: str
    shape: Shape
    transform: Transform
    is_stored: bool = True  # False: a bias that only the runtime has, zeros

    def make(self, read: Read) -> Tensor:
        """Make the runtime's values."""
        values = read(self.ours) if self.is_stored else torch.zeros(self.shape)
        return self.transform.apply(values)

    @property
    def rows(self) -> int:
        """Rows of the runtime's tensor that hold this one."""
        return self.transform.apply(torch.empty(self.shape, device="meta")).shape[0]


@dataclass(frozen=True)
class Link:
    """A tensor of the runtime, and what it holds: tensors of ours, stacked, or a constant."""

    name: str
    parts: tuple[Part, ...] = ()
    constant: Callable[[], Tensor] | None = None  # without parts
    is_transposed: bool = False

    def make(self, read: Read) -> Tensor:
        """Make the runtime's tensor from ours."""
        if self.constant:
            return self.constant()
        made = [part.make(read) for part in self.parts]
        values = torch.cat(made) if len(made) > 1 else made[0]
        return values.T.contiguous() if self.is_transposed and values.dim() == 2 else values

    def split(self, values: Tensor) -> Iterator[tuple[Part, Tensor]]:
        """Take the runtime's tensor apart into ours."""
        values = values.T if self.is_transposed and values.dim() == 2 else values
        first = 0
        for part in self.parts:
            yield part, part.transform.invert(values[first : first + part.rows]).contiguous()
            first += part.rows

    @property
    def shape(self) -> Shape:
        """Shape of the runtime's tensor."""
        shapes = {part.ours: part.shape for part in self.parts}
        return tuple(self.make(lambda name: torch.empty(shapes[name], device="meta")).shape)

    @property
    def may_be_longer(self) -> bool:
        """True for tables of tokens and positions, whose last rows a model may not use."""
        return all(part.ours in TABLES for part in self.parts) and bool(self.parts)

    def is_bias_of(self, modules: Container[str]) -> bool:
        """Return True for a bias of these modules."""
        names = [BLOCK.sub("", part.ours) for part in self.parts]
        return all(
            name.endswith(".bias") and name.removesuffix(".bias") in modules for name in names
        )


@dataclass(frozen=True)
class ForeignWeights:
    """A model in files from elsewhere, in our terms; its tensors are read one at a time."""

    source: Path
    architecture: str  # ``general.architecture`` of a GGUF file, or the class of transformers
    params: ModelParams
    rows: int  # of the embedding; the tokenizer may have fewer pieces
    ignored: tuple[str, ...]  # keys of the config that Atlas doesn't know
    dtype: torch.dtype  # to store the tensors in: the type of all of them if it has 16 bits
    converter: Callable[[ModelConfig], "TensorConverter"]
    shapes: Mapping[str, Shape]  # of the tensors in the files
    read: Read  # a tensor of the files in float32

    @property
    def size(self) -> int:
        """Bytes of all our tensors in float32."""
        shapes = stored_shapes(config_of(self.params, self.rows))
        return 4 * sum(math.prod(shape) for shape in shapes.values())

    def tensors(self, vocab_size: int) -> Iterator[tuple[str, Tensor]]:
        """Yield our tensors by name; the rows of the embedding after ``vocab_size`` are dropped."""
        converter = self.converter(config_of(self.params, vocab_size))
        for name, tensor in converter.from_theirs(self.shapes, self.read, str(self.source)):
            yield name, tensor.to(self.dtype)


def config_of(params: ModelParams, vocab_size: int) -> ModelConfig:
    """A config without a tokenizer, for the shapes of tensors."""
    no_tokenizer: dict[str, Any] = {
        "bos": 0,
        "eos": 0,
        "end_ids": (0,),
        "separator": None,
        "add_bos_token": False,
    }
    return ModelConfig(
        **params.model_dump(),
        **no_tokenizer,
        vocab_size=vocab_size,
        sequence_length=params.context_length,
        tokenizer_sha256="",
        learned_tokens=0,
    )


def check_size(params: ModelParams, rows: int, theirs: Mapping[str, Shape], source: str) -> None:
    """Refuse a config of far more weights than there are, before memory is used for them."""
    query = params.n_head * (params.d_head or params.d_model // params.n_head)
    described = params.d_model * (rows + params.n_layer * (query + params.d_ff))
    stored = sum(math.prod(shape) for shape in theirs.values())
    if params.n_layer > len(theirs) or described > MAX_EXCESS * stored:
        raise AtlasError(
            f"{source}: the config describes {params.n_layer:,} blocks of {params.d_model:,} "
            f"channels, and there are only {len(theirs):,} tensors with {stored:,} values"
        )


@dataclass
class TensorConverter:
    """Renames and transforms the tensors of a model into those of a runtime, and back."""

    config: ModelConfig
    shapes: Mapping[str, Shape]  # of our stored tensors
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
    extra: tuple[Link, ...] = ()

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
            this.transforms["feed_forward.up"] = scaling(k)
        if architecture.scales_embedding:
            this._undo_embedding_scale()
        if architecture.adjacent_rope:
            this.transforms |= dict.fromkeys(QKV[:2], interleaving(config.head_size))
        if not architecture.scales_scores:
            this.transforms["attention.query"] = scaling(config.head_size**0.5)
        if config.rope_scaling_kind == "llama3":
            this.extra = (Link(ROPE_FACTORS, constant=partial(rope_factors, config)),)
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
            repeat = repeating(config.head_size, config.n_head // config.n_kv_head)
            this.transforms |= dict.fromkeys(QKV[1:], repeat)
            return this
        top = ("model.embed_tokens", "", "model.norm", "lm_head")
        this = cls(config, shapes, top, "model.layers.{}", names)
        this.biased = NORMS if config.norm == "layernorm" else ()
        if kind.model_type == "llama" and config.qkv_bias:
            this.biased = ("attention.output",)
        elif kind.model_type == "starcoder2" and config.qkv_bias:
            this.biased = ALL
        if kind.model_type == "gemma":  # it computes (1 + weight) in its norms
            this._undo_embedding_scale()
            for norm in NORMS:
                this._then(norm, shifting(-1))
        elif not kind.plain and config.feed_forward not in GATES:
            # activation(gate) * 1 is the activation
            names["feed_forward.up"] = "mlp.gate_proj"
            this.constants["mlp.up_proj.weight"] = ((config.d_ff, config.d_model), 0.0)
            this.constants["mlp.up_proj.bias"] = ((config.d_ff,), 1.0)
            this.biased += FEED_FORWARD
        return this

    def _undo_embedding_scale(self) -> None:
        """Divide the embedding by sqrt(C), which Gemma multiplies it by."""
        scale = self.config.d_model**0.5
        self._then("embedding", scaling(1 / scale))
        if self.config.tied_head:  # the head is the same matrix, so the norm undoes it
            self._then("norm", scaling(scale))

    def _then(self, module: str, transform: Transform) -> None:
        before = self.transforms.get(module)
        self.transforms[module] = chained(before, transform) if before else transform

    @property
    def is_exact(self) -> bool:
        """True if no transform changes a value."""
        return all(transform.is_exact for transform in self.transforms.values())

    def recipes(self) -> Iterator[NamedRecipe]:
        """List all tensors in the order of a GGUF file, each contiguous and in float32.

        With a recipe for each, a file can be written with one tensor in memory at a time.
        """
        for link in self.links():
            yield link.name, link.make

    def links(self) -> Iterator[Link]:
        """List the tensors of the runtime with what they hold, in the order of a GGUF file."""
        embedding, positions, norm, head = self.top
        yield from self.extra
        yield from self._module("embedding", embedding)
        yield from self._positions(f"{positions}.weight")
        for number in range(self.config.n_layer):
            yield from self._block(f"blocks.{number}.", self.block.format(number))
        yield from self._module("norm", norm)
        yield from self._module("head", head)
        if self.config.tied_head and self.copies_head:
            yield from self._module("embedding", head)

    def check(
        self,
        theirs: Mapping[str, Shape],
        source: str,
        unused: re.Pattern[str],
        without_bias: Container[str] = ALL,
    ) -> None:
        """Compare the tensors of a file with those that its config describes.

        The tensors ``unused`` don't matter, and the modules ``without_bias`` may lack biases.
        Tables of tokens and positions may have more rows.
        """
        head = f"{self.top[3]}.weight"
        links = {link.name: link for link in self.links()}
        for name, link in links.items():
            shape, found = link.shape, theirs.get(name)
            if found is None:
                is_copy = self.config.tied_head and name == head
                if not (link.constant or is_copy or link.is_bias_of(without_bias)):
                    raise AtlasError(f"{source}: tensor {name} {shape} is missing")
            elif found != shape and not (
                link.may_be_longer and found[:1] > shape[:1] and found[1:] == shape[1:]
            ):
                raise AtlasError(
                    f"{source}: tensor {name} has shape {found}, and the config describes {shape}"
                )
        for name in theirs.keys() - links.keys():
            is_copy = self.config.tied_head and name == head
            if not is_copy and not unused.fullmatch(name):
                raise AtlasError(
                    f"{source}: tensor {name} {theirs[name]} is not part of the model that the "
                    "config describes"
                )

    def from_theirs(
        self, theirs: Mapping[str, Shape], read: Read, source: str
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield our tensors, by name, from those of a file that passed ``check``.

        A bias that the file lacks is zero. Constants, and biases that only the runtime has, must
        have the values that we would write.
        """
        found: set[str] = set()
        for link in self.links():
            if link.name not in theirs:
                for part in link.parts:
                    if part.is_stored and part.ours not in found:
                        found.add(part.ours)
                        yield part.ours, torch.zeros(part.shape)
                continue
            if all(part.ours in found for part in link.parts) and link.parts:
                continue  # the copy of a tied head
            values = read(link.name)
            if link.constant:
                expected = link.constant()
                if not torch.allclose(values[: len(expected)], expected, rtol=1e-4, atol=1e-6):
                    raise AtlasError(
                        f"{source}: tensor {link.name} has other values than the config describes"
                    )
            rows = link.shape[0] if link.may_be_longer else len(values)
            for part, ours in link.split(values[:rows]):
                if part.is_stored:
                    found.add(part.ours)
                    yield part.ours, ours
                elif ours.any():
                    raise AtlasError(f"{source}: tensor {link.name} is not zero")

    def _positions(self, name: str) -> Iterator[Link]:
        shape = (self.config.context_length, self.config.d_model)
        match self.config.positions:
            case "learned":
                yield Link(name, (Part("positions.weight", shape, SAME),))
            case "sinusoidal":
                yield Link(name, constant=partial(sinusoidal_table, *shape))
            case "none" if self.has_positions:
                yield Link(name, constant=partial(torch.zeros, shape))

    def _block(self, ours: str, theirs: str) -> Iterator[Link]:
        for module, name in self.names.items():
            if not (self.fused_qkv and module in QKV):
                yield from self._module(module, f"{theirs}.{name}", ours)
            elif module == QKV[0]:
                yield from self._fused_qkv(f"{theirs}.{self.fused_qkv}", ours)
        for name, (shape, value) in self.constants.items():
            yield Link(f"{theirs}.{name}", constant=partial(torch.full, shape, value))

    def _fused_qkv(self, theirs: str, block: str) -> Iterator[Link]:
        """Stack queries, keys and values into one tensor."""
        for kind in ("weight", "bias"):
            parts = [self._part(module, kind, block) for module in QKV]
            if all(parts):
                yield Link(
                    f"{theirs}.{kind}", tuple(filter(None, parts)), is_transposed=self.transposed
                )

    def _module(self, ours: str, theirs: str, block: str = "") -> Iterator[Link]:
        """Weight and bias of a module; a bias that only the runtime has is zero."""
        transposed = self.transposed and bool(block)
        for kind in ("weight", "bias"):
            if part := self._part(ours, kind, block):
                yield Link(f"{theirs}.{kind}", (part,), is_transposed=transposed)

    def _part(self, module: str, kind: str, block: str) -> Part | None:
        """The weight or bias of a module as a part of a tensor of the runtime, if it has one."""
        name, weight = f"{block}{module}.{kind}", f"{block}{module}.weight"
        transform = self.transforms.get(module, SAME)
        if name in self.shapes:
            return Part(name, self.shapes[name], transform)
        if kind == "bias" and weight in self.shapes and module in self.biased:
            return Part(name, self.shapes[weight][:1], transform, is_stored=False)
        return None


def stored_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Shapes of the tensors that a decoder of ours stores, by name."""
    small = config.model_copy(update={"n_layer": 1, "context_length": 2})  # blocks are alike
    with _WithoutInit():
        model = make_model(small)
    shapes: dict[str, Shape] = {}
    for name, weight in weights_of(model).items():
        shape = tuple(weight.shape)
        if name == "positions.weight":
            shape = (config.context_length, *shape[1:])
        for block in range(config.n_layer if name.startswith(FIRST_BLOCK) else 1):
            shapes[name.replace(FIRST_BLOCK, f"blocks.{block}.")] = shape
    return shapes


class _WithoutInit(TorchFunctionMode):
    """Make modules whose weights are memory that nothing has touched.

    On the device ``meta``, making a model takes seconds.
    """

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs.get("tensor", *args[:1])
        return func(*args, **kwargs)


def scaling(factor: float) -> Transform:
    """Multiply by a factor."""
    return Transform(lambda values: values * factor, lambda values: values / factor, is_exact=False)


def shifting(term: float) -> Transform:
    """Add a number."""
    return Transform(lambda values: values + term, lambda values: values - term, is_exact=False)


def chained(first: Transform, second: Transform) -> Transform:
    """Apply one transform after another."""
    return Transform(
        lambda values: second.apply(first.apply(values)),
        lambda values: first.invert(second.invert(values)),
        first.is_exact and second.is_exact,
    )


def interleaving(head_size: int) -> Transform:
    """Reorder the rows of each head so that the two rows of a RoPE pair are adjacent.

    Atlas rotates rows i and i + D/2 of a head together, llama.cpp's ``llama`` rows 2i and 2i + 1.
    """

    def swapped(values: Tensor, *split: int) -> Tensor:
        parts = values.reshape(-1, *split, *values.shape[1:])  # (heads, 2, D/2, ...), or D/2 first
        return parts.transpose(1, 2).reshape(values.shape)

    half = head_size // 2
    return Transform(lambda each: swapped(each, 2, half), lambda each: swapped(each, half, 2))


def repeating(head_size: int, times: int) -> Transform:
    """Repeat each head of (K * D, ...) for the queries that share it, (H * D, ...)."""

    def heads(values: Tensor) -> Tensor:
        return values.reshape(-1, head_size, *values.shape[1:])  # (heads, D, ...)

    return Transform(
        lambda values: heads(values).repeat_interleave(times, dim=0).flatten(0, 1),
        lambda values: heads(values)[::times].flatten(0, 1),
    )


def rope_factors(config: ModelConfig) -> Tensor:
    """Numbers that llama.cpp divides the frequencies of RoPE by, (R/2,)."""
    unscaled = config.model_copy(update={"rope_scaling": 1.0, "rope_scaling_kind": "linear"})
    return (rotary_frequencies(unscaled)[0] / rotary_frequencies(config)[0]).float()
