"""Export formats, and the models that each runtime can run.

The tables list the architectures of llama.cpp and the classes of transformers with the model
options each supports. The schema rejects models that no row supports, before any work is done, and
the export writes a model as the first row that supports it. Tests run every row and compare logits
with PyTorch's (tests/export: check/test_against_llama_cpp.py, test_hugging_face.py).
"""

import importlib.util
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

from atlas.errors import did_you_mean

Unquantized = Literal["f32", "f16", "bf16"]
FiveBitsOrMore = Literal["q8_0", "q6_k", "q5_k_m", "q5_k_s", "q5_1", "q5_0"]
FourBitsOrLess = Literal["q4_k_m", "q4_k_s", "q4_1", "q4_0", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k"]
GgufFormat = Literal[Unquantized, FiveBitsOrMore, FourBitsOrLess]
GGUF, ADAPTER = "gguf:", "gguf:adapter"
HUGGING_FACE, ONNX, TORCH = "hugging_face", "onnx", "torch"
GGUF_FORMATS = tuple(f"{GGUF}{name}" for name in get_args(GgufFormat))
FORMATS = (*GGUF_FORMATS, ADAPTER, HUGGING_FACE, ONNX, TORCH)
UNQUANTIZED = get_args(Unquantized)
BLOCK_SIZE = 32  # values of a row that share a scale in a quantized type
K_BLOCK_SIZE = 256  # the same in a K type
MIN_HEAD = 2  # channels; llama.cpp aborts on heads of one channel
ONNX_PACKAGES = ("onnxscript", "onnxruntime")


def known_format(name: str) -> str:
    """Return the name of a format; a ValueError for an unknown name lists all formats."""
    if name not in FORMATS:
        raise ValueError(f"one of {', '.join(FORMATS)}{did_you_mean(name.lower(), FORMATS)}")
    return name


def gguf_formats(formats: Iterable[str]) -> list[GgufFormat]:
    """The GGUF formats of a whole model, without their prefix."""
    return [cast(GgufFormat, name.removeprefix(GGUF)) for name in formats if name in GGUF_FORMATS]


def _quantized_formats(formats: Iterable[str]) -> list[str]:
    """The formats whose rows must be multiples of ``BLOCK_SIZE``."""
    return [f"{GGUF}{name}" for name in gguf_formats(formats) if name not in UNQUANTIZED]


def has_k_types(name: str) -> bool:
    """Return True for a format that mixes K types (``q4_k_m``), or a K type (``q4_k``)."""
    return "_k" in name


Options = Mapping[str, Any]  # model options by name
Allowed = Mapping[str, tuple[Any, ...]]  # values of model options; options not named are free

ANY = ()  # any value of an option
COMMON: Allowed = {  # for every row that does not say otherwise
    "kind": ("decoder",),
    "norm_position": ("pre",),
    "d_head": (None,),
    "rope_scaling_kind": ("linear",),
    "rope_scaling_rotations": (None,),  # llama.cpp has the usual ones
    "rotary_share": (1.0,),
    "no_rope_every": (None,),
    "qk_norm": (None,),
    "bias": (False, True),
    "window": (None,),  # no architecture of llama.cpp has the same window in every block
}


@dataclass(frozen=True)
class RuntimeSupport:
    """A kind of model that a runtime can run."""

    name: str  # the runtime's name for it
    allows: Allowed  # in addition to COMMON; the most common value first

    @property
    def allowed(self) -> Allowed:
        """Supported values of model options, ``COMMON`` included."""
        return {**COMMON, **self.allows}

    @property
    def uses_rope(self) -> bool:
        """True if it always applies RoPE; for a model without positions, all angles are 0."""
        return "rope" in self.allowed["positions"]

    def required_changes(self, options: Options) -> dict[str, Any]:
        """The options with an unsupported value, with the value to give each."""
        return {
            key: values[0]
            for key, values in self.allowed.items()
            if values and options[key] not in values
        }


Row = TypeVar("Row", bound=RuntimeSupport)


def find_support(rows: Sequence[Row], options: Options) -> Row | None:
    """The first row that supports these model options, or None."""
    return next((row for row in rows if not row.required_changes(options)), None)


def nearest_change(rows: Sequence[RuntimeSupport], options: Options) -> str:
    """The smallest change that a row supports, as ``model.norm=layernorm ...``."""
    changes = min((row.required_changes(options) for row in rows), key=len)
    return " ".join(f"model.{key}={_yaml(value)}" for key, value in changes.items())


def _yaml(value: object) -> str:
    return "null" if value is None else str(value).lower()


def _describe(options: Options) -> str:
    """The options that support depends on: ``learned + rmsnorm + swiglu``, then unusual ones."""
    if options["kind"] != "decoder":
        return f"model.kind={options['kind']}"
    parts = [str(options[key]) for key in ("positions", "norm", "feed_forward")]
    parts += [f"{key}={options[key]}" for key, usual in COMMON.items() if options[key] not in usual]
    parts += [key for key in ("bias", "tied_head") if options[key] is True]
    return " + ".join(parts)


NO_ROTATION = 1e30  # divides positions; large enough that every angle is 0


def rope_scaling(options: Options) -> float:
    """The factor that RoPE divides positions by, in a runtime that always applies RoPE."""
    scaling: float = options["rope_scaling"]
    return NO_ROTATION if options["positions"] == "none" else scaling


HALF_PRECISION_GELU = 5e-3  # ggml computes GELU from a half-precision table


@dataclass(frozen=True)
class Architecture(RuntimeSupport):
    """An architecture of llama.cpp; its name is ``general.architecture`` in a GGUF file.

    Parts that a file must have but the model lacks are zeros; a tied head is the embedding again.
    Where an architecture lacks ReLU, its own activation emulates it: the input is multiplied by
    ``relu_scale`` and the result divided by it. A larger factor would lose small values.
    """

    adjacent_rope: bool = False  # RoPE rotates adjacent pairs, so the rows of q and k are reordered
    fused_qkv: bool = False  # queries, keys and values are one tensor
    always_bias: bool = False  # the file must have biases
    always_norm_bias: bool = False  # the file must have biases of norms
    always_head: bool = False  # the file must have the head
    always_positions: bool = False  # the file must have a position table
    always_gated: bool = False  # a plain activation is the gate of an ``up`` that is constant
    relu_scale: float = 1.0
    scales_scores: bool = True  # attention scores are divided by sqrt(D)
    scales_embedding: bool = False  # the embedding is multiplied by sqrt(C)
    logit_tolerance: float = 1e-4  # difference of F32 logits that rounding explains, if their
    # deviation is 1; it grows with the deviation


SCALED = {"rope_scaling_kind": ("linear", "yarn")}
SCALED_3 = {"rope_scaling_kind": ("linear", "yarn", "llama3"), "rope_scaling_rotations": ANY}
ROPE, ALIBI = {"positions": ("rope",), **SCALED}, {"positions": ("alibi",)}
ROTARY = {"positions": ("rope", "none"), **SCALED}  # none: RoPE with every angle scaled to 0
TABLE = ("learned", "sinusoidal", "none")  # positions that are a table, zeros for none
RMSNORM = {"norm": ("rmsnorm",)}
LAYERNORM = {"norm": ("layernorm",)}
LLAMA_LIKE = {**ROTARY, **RMSNORM}
NO_BIAS, ANY_BIAS = {"bias": (False,)}, {"bias": ANY}
QKV_BIAS = {"bias": ("qkv",)}
SWIGLU = {"feed_forward": ("swiglu",)}
GELU = {"feed_forward": ("gelu",)}
RELU2 = {"feed_forward": ("relu2",)}
QWEN3 = {**LLAMA_LIKE, "qk_norm": ("head",), **NO_BIAS, "d_head": ANY}
OLMO2 = {**LLAMA_LIKE, "norm_position": ("reordered",), "qk_norm": ("all",), **NO_BIAS}
GEMMA = {**LLAMA_LIKE, "feed_forward": ("geglu",), **NO_BIAS, "tied_head": (True,), "d_head": ANY}
STABLELM = {**LAYERNORM, "bias": (False, "norm", "qkv", "qkv_norm"), "rotary_share": ANY}
LLAMA = {
    **LLAMA_LIKE,
    "feed_forward": ("swiglu", "silu", "relu"),
    "bias": (False, True, "qkv"),
    "d_head": ANY,
}
LLAMA_FILE: dict[str, Any] = {"adjacent_rope": True, "always_gated": True, "relu_scale": 4096.0}
NORM_BIAS_AND_HEAD = {"always_norm_bias": True, "always_head": True}

ARCHITECTURES = (
    Architecture("qwen2", {**LLAMA_LIKE, **QKV_BIAS, **SWIGLU}),
    Architecture("llama", LLAMA, **LLAMA_FILE),
    Architecture(
        "llama",
        {
            **LLAMA,
            "positions": ("rope",),
            "rope_scaling_kind": ("llama3",),
            "rope_scaling_rotations": ANY,
        },
        **LLAMA_FILE,
    ),
    Architecture("qwen3", {**QWEN3, **SWIGLU}),
    Architecture(
        "smollm3",
        {**LLAMA_LIKE, **ROPE, **SWIGLU, **NO_BIAS, "no_rope_every": (4,), "d_head": ANY},
        adjacent_rope=True,
    ),
    Architecture("olmo2", {**OLMO2, **SWIGLU}, always_head=True),
    Architecture("arcee", {**LLAMA_LIKE, **RELU2, **NO_BIAS, "d_head": ANY}, adjacent_rope=True),
    Architecture("gemma", GEMMA, scales_embedding=True, logit_tolerance=HALF_PRECISION_GELU),
    Architecture("refact", {**ALIBI, **RMSNORM, **SWIGLU, **NO_BIAS}),
    Architecture(
        "gpt2",
        {"positions": TABLE, **LAYERNORM, **GELU, **ANY_BIAS},
        fused_qkv=True,
        always_bias=True,
        always_positions=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "mpt",
        {**ALIBI, **LAYERNORM, **GELU, **ANY_BIAS},
        fused_qkv=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "mpt",
        {"positions": (*TABLE, "alibi"), **LAYERNORM, "feed_forward": ("relu",), **ANY_BIAS},
        fused_qkv=True,
        relu_scale=1024.0,
        logit_tolerance=1e-3,
    ),
    Architecture(
        "jais",
        {"positions": ("alibi", "none"), **LAYERNORM, **SWIGLU, **ANY_BIAS},
        fused_qkv=True,
        always_bias=True,
        always_head=True,
        scales_scores=False,
    ),
    Architecture(
        "starcoder2",
        {**ROPE, **LAYERNORM, **GELU, **ANY_BIAS},
        always_bias=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture("stablelm", {**ROPE, **STABLELM, **SWIGLU}, **NORM_BIAS_AND_HEAD),
    Architecture(
        "nemotron",
        {**ROTARY, **LAYERNORM, **RELU2, **ANY_BIAS, "rotary_share": ANY},
        **NORM_BIAS_AND_HEAD,
    ),
)


def architecture_of(options: Options) -> Architecture | None:
    """The architecture of llama.cpp that supports these model options, or None."""
    return find_support(ARCHITECTURES, options)


PLAIN = ("gelu", "relu", "silu", "relu2")
GATED = ("swiglu", "geglu")


@dataclass(frozen=True)
class HuggingFaceClass(RuntimeSupport):
    """A causal language model of transformers; its name is that of the class."""

    model_type: str  # in config.json
    pre_tokenizer: str | None = None  # transformers reads every tokenizer of this class with it

    @property
    def plain(self) -> bool:
        """True if the feed-forward part has no gate."""
        return self.allows.get("feed_forward") == PLAIN


WINDOW = {"window": ANY}
GATES = {"feed_forward": GATED, **SCALED_3}
CLASSES = (
    HuggingFaceClass("GemmaForCausalLM", {**GEMMA, **SCALED_3}, "gemma"),
    HuggingFaceClass(
        "Qwen2ForCausalLM",
        {**LLAMA_LIKE, **GATES, **QKV_BIAS, **WINDOW, "d_head": ANY},
        "qwen2",
        pre_tokenizer="qwen2",
    ),
    HuggingFaceClass(
        "LlamaForCausalLM",
        {**LLAMA_LIKE, **SCALED_3, "bias": (False, True, "qkv"), "d_head": ANY},
        "llama",
    ),
    HuggingFaceClass(
        "MistralForCausalLM",
        {**LLAMA_LIKE, **GATES, **NO_BIAS, **WINDOW, "d_head": ANY},
        "mistral",
    ),
    HuggingFaceClass("Qwen3ForCausalLM", {**QWEN3, **GATES, **WINDOW}, "qwen3"),
    HuggingFaceClass(
        "SmolLM3ForCausalLM",
        {**LLAMA_LIKE, **ROPE, **SCALED_3, "no_rope_every": ANY, "d_head": ANY},
        "smollm3",
    ),
    HuggingFaceClass("Olmo2ForCausalLM", {**OLMO2, **GATES, "d_head": ANY}, "olmo2"),
    HuggingFaceClass(
        "GPT2LMHeadModel",
        {"positions": TABLE, **LAYERNORM, "feed_forward": PLAIN, **ANY_BIAS},
        "gpt2",
    ),
    HuggingFaceClass(
        "Starcoder2ForCausalLM",
        {
            **ROPE,
            **SCALED_3,
            **LAYERNORM,
            "feed_forward": PLAIN,
            **ANY_BIAS,
            **WINDOW,
            "d_head": ANY,
        },
        "starcoder2",
    ),
    HuggingFaceClass("StableLmForCausalLM", {**ROTARY, **STABLELM, **GATES}, "stablelm"),
)


def class_of(options: Options, pre_tokenizer: str | None = None) -> HuggingFaceClass | None:
    """The class of transformers that supports these model options and the tokenizer, or None."""
    rows = [row for row in CLASSES if row.pre_tokenizer in (None, pre_tokenizer)]
    return find_support(rows, options)


def export_conflicts(options: Options, formats: Sequence[str]) -> Iterator[str]:
    """Yield each reason why a model cannot be exported in some format, with the nearest fix."""
    if len(set(formats)) < len(formats):
        yield f"a format is listed twice: {', '.join(formats)}"
    packages = ONNX_PACKAGES if ONNX in formats else ()
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        yield f"{ONNX} needs {' and '.join(missing)}: run `pip install 'atlas[onnx]'`"
    runtimes: dict[str, tuple[Sequence[RuntimeSupport], list[str]]] = {
        "llama.cpp": (ARCHITECTURES, [name for name in formats if name.startswith(GGUF)]),
        "transformers": (
            [row for row in CLASSES if row.pre_tokenizer is None],
            [name for name in formats if name == HUGGING_FACE],
        ),
    }
    size, heads = _head_size(options), options["n_head"]
    for runtime, (rows, named) in runtimes.items():
        support = find_support(rows, options)
        if named and support is None:
            yield (
                f"{runtime} runs no model with {_describe(options)}; nearest: "
                f"{nearest_change(rows, options)}; or drop {', '.join(named)}"
            )
        elif named and support and not _runs_heads(support, options):
            key, fix = "model.d_head", f"model.d_head={_round_up(size, 2)}"
            if not options["d_head"]:
                key = "model.d_model / model.n_head"
                fix = f"model.d_model={_round_up(options['d_model'], 2 * heads)}"
            yield (
                f"{runtime}'s {support.name} needs heads with an even number of channels, 2 or "
                f"more, and {key} is {size}: try {fix}"
            )
    programs = [name for name in formats if name in (ONNX, TORCH)]
    if programs and options["kind"] != "decoder":
        yield f"{programs[0]} supports decoders only: drop {', '.join(programs)}"
    packed = _quantized_formats(formats)
    d_ff = options["d_ff"]
    fits = {"d_model": fitting_width(options, formats), "d_ff": _round_up(d_ff, BLOCK_SIZE)}
    for key, fit in fits.items():
        if packed and options[key] % BLOCK_SIZE:
            yield (
                f"{packed[0]} packs rows of {BLOCK_SIZE}, and model.{key} is {options[key]}: try "
                f"model.{key}={fit} or drop {', '.join(packed)}"
            )
    if packed and options["d_head"] and (queries := heads * size) % BLOCK_SIZE:
        fit = _round_up(size, math.lcm(2, BLOCK_SIZE // math.gcd(heads, BLOCK_SIZE)))
        yield (
            f"{packed[0]} packs rows of {BLOCK_SIZE}, and model.n_head * model.d_head is "
            f"{queries}: try model.d_head={fit} or drop {', '.join(packed)}"
        )


def _head_size(options: Options) -> int:
    size: int = options["d_head"] or options["d_model"] // options["n_head"]
    return size


def _runs_heads(support: RuntimeSupport, options: Options) -> bool:
    """True if the runtime runs heads of this size; a model with RoPE has its own rule."""
    is_uneven = not options["d_head"] and options["d_model"] % options["n_head"]
    if options["positions"] == "rope" or is_uneven:
        return True
    size = _head_size(options)
    too_small = size < MIN_HEAD and isinstance(support, Architecture)
    return not (too_small or (support.uses_rope and size % 2))


def fitting_width(options: Options, formats: Sequence[str]) -> int:
    """The next d_model that fits heads, positions and formats together."""
    per_head = 2 if options["positions"] == "rope" else 1
    per_pair = 2 if options["positions"] == "sinusoidal" else 1
    per_block = BLOCK_SIZE if _quantized_formats(formats) else 1
    heads = 1 if options["d_head"] else options["n_head"] * per_head
    width = math.lcm(heads, per_pair, per_block)
    return _round_up(options["d_model"], width)


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
