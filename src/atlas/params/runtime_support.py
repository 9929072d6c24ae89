"""Export formats, and the models that each runtime can run.

The tables list the architectures of llama.cpp and the classes of transformers with the model
options each supports. The schema refuses what no row supports before any work is done, and the
export writes a model as the first row that supports it. Tests run every row and compare its logits
with PyTorch's (tests/export/check/test_against_llama_cpp.py, tests/export/hugging_face).
"""

import difflib
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

GgufFormat = Literal[
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q6_k",
    "q5_k_m",
    "q5_k_s",
    "q5_1",
    "q5_0",
    "q4_k_m",
    "q4_k_s",
    "q4_1",
    "q4_0",
    "q3_k_l",
    "q3_k_m",
    "q3_k_s",
    "q2_k",
]
GGUF = "gguf:"
HUGGING_FACE, ONNX, TORCH = "hugging_face", "onnx", "torch"
FORMATS = (*(f"{GGUF}{name}" for name in get_args(GgufFormat)), HUGGING_FACE, ONNX, TORCH)
UNQUANTIZED = ("f32", "f16", "bf16")
BLOCK_SIZE = 32  # values of a row that share a scale in a quantized type
K_BLOCK_SIZE = 256  # the same in a K type
ONNX_PACKAGES = ("onnxscript", "onnxruntime")


def known_format(name: str) -> str:
    """Return the name of a format.

    Raises:
        ValueError: no format has this name; the message lists them.
    """
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"one of {', '.join(FORMATS)}{hint}")
    return name


def gguf_formats(formats: Iterable[str]) -> list[GgufFormat]:
    """The GGUF formats, without their prefix."""
    return [cast(GgufFormat, name.removeprefix(GGUF)) for name in formats if name.startswith(GGUF)]


def quantized_formats(formats: Iterable[str]) -> list[str]:
    """The formats whose rows must be multiples of ``BLOCK_SIZE``."""
    return [f"{GGUF}{name}" for name in gguf_formats(formats) if name not in UNQUANTIZED]


def has_k_types(name: str) -> bool:
    """Say if a format mixes K types (``q4_k_m``), or if a type is one (``q4_k``)."""
    return "_k" in name


def missing_packages(formats: Iterable[str]) -> list[str]:
    """The optional packages that the formats need and that are not installed."""
    needed = ONNX_PACKAGES if ONNX in formats else ()
    return [name for name in needed if importlib.util.find_spec(name) is None]


Options = Mapping[str, Any]  # model options by name
Allowed = Mapping[str, tuple[Any, ...]]  # values of model options; options not named are free

COMMON: Allowed = {  # for every row that does not say otherwise
    "kind": ("decoder",),
    "norm_position": ("pre",),
    "qk_norm": (None,),
    "window": (None,),  # no runtime has a model with the same window in every block
}


@dataclass(frozen=True)
class RuntimeSupport:
    """A kind of model that a runtime can run.

    Attributes:
        name: the runtime's name for it.
        allows: supported values of model options, beyond ``COMMON``, the usual value first.
    """

    name: str
    allows: Allowed

    @property
    def allowed(self) -> Allowed:
        """Supported values of model options, ``COMMON`` included."""
        return {**COMMON, **self.allows}

    @property
    def uses_rope(self) -> bool:
        """It always applies RoPE, for a model without positions with angles of 0."""
        return "rope" in self.allowed["positions"]

    def required_changes(self, options: Options) -> dict[str, Any]:
        """The options with an unsupported value, with the value to give each."""
        return {
            key: values[0] for key, values in self.allowed.items() if options[key] not in values
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


def describe_options(options: Options) -> str:
    """The options that support depends on: ``learned + rmsnorm + swiglu``, then unusual ones."""
    if options["kind"] != "decoder":
        return f"model.kind={options['kind']}"
    parts = [str(options[key]) for key in ("positions", "norm", "feed_forward")]
    parts += [f"{key}={options[key]}" for key, usual in COMMON.items() if options[key] not in usual]
    parts += [key for key in ("bias", "tied_head") if options[key]]
    return " + ".join(parts)


NO_ROTATION = 1e30  # divides positions so far that every angle is 0


def rope_scaling(options: Options) -> float:
    """The factor that RoPE divides positions by, in a runtime that always applies RoPE."""
    scaling: float = options["rope_scaling"]
    return NO_ROTATION if options["positions"] == "none" else scaling


HALF_PRECISION_GELU = 5e-3  # ggml computes GELU from a half-precision table


@dataclass(frozen=True)
class Architecture(RuntimeSupport):
    """An architecture of llama.cpp; its name is ``general.architecture`` in a GGUF file.

    Attributes:
        adjacent_rope: RoPE rotates adjacent pairs of a head instead of its two halves, so the rows
            of query and key weights are reordered.
        fused_qkv: queries, keys and values are one tensor.
        always_bias: the file must have biases; zeros for a model without.
        always_norm_bias: the file must have biases of norms.
        always_head: the file must have the head; a copy of the embedding where it is tied.
        always_positions: the file must have a position table; zeros for a model without.
        always_gated: the feed-forward part has a gate. A plain activation is written as a gate next
            to an ``up`` that is the same for every input.
        relu_scale: without ReLU in the architecture, its own activation of ``relu_scale`` times the
            input, divided by it again, is almost ReLU. A larger factor would lose small values.
        scales_scores: attention scores are divided by sqrt(D).
        scales_embedding: the embedding is multiplied by sqrt(C).
        logit_tolerance: largest difference of F32 logits from PyTorch's that rounding explains.
    """

    adjacent_rope: bool = False
    fused_qkv: bool = False
    always_bias: bool = False
    always_norm_bias: bool = False
    always_head: bool = False
    always_positions: bool = False
    always_gated: bool = False
    relu_scale: float = 1.0
    scales_scores: bool = True
    scales_embedding: bool = False
    logit_tolerance: float = 1e-4


ROTARY = ("rope", "none")  # without positions: RoPE with every angle scaled to 0
RMSNORM = {"norm": ("rmsnorm",)}
LAYERNORM = {"norm": ("layernorm",)}

ARCHITECTURES = (
    Architecture(
        "llama",
        {"positions": ROTARY, **RMSNORM, "feed_forward": ("swiglu", "silu", "relu")},
        adjacent_rope=True,
        always_gated=True,
        relu_scale=4096.0,
    ),
    Architecture(
        "qwen3",
        {
            "positions": ROTARY,
            **RMSNORM,
            "feed_forward": ("swiglu",),
            "qk_norm": ("head",),
            "bias": (False,),
        },
    ),
    Architecture(
        "olmo2",
        {
            "positions": ROTARY,
            **RMSNORM,
            "norm_position": ("reordered",),
            "feed_forward": ("swiglu",),
            "qk_norm": ("all",),
            "bias": (False,),
        },
        always_head=True,
    ),
    Architecture(
        "arcee",
        {"positions": ROTARY, **RMSNORM, "feed_forward": ("relu2",), "bias": (False,)},
        adjacent_rope=True,
    ),
    Architecture(
        "gemma",
        {
            "positions": ROTARY,
            **RMSNORM,
            "feed_forward": ("geglu",),
            "bias": (False,),
            "tied_head": (True,),
        },
        scales_embedding=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "refact",
        {"positions": ("alibi",), **RMSNORM, "feed_forward": ("swiglu",), "bias": (False,)},
    ),
    Architecture(
        "gpt2",
        {
            "positions": ("learned", "sinusoidal", "none"),
            **LAYERNORM,
            "feed_forward": ("gelu",),
        },
        fused_qkv=True,
        always_bias=True,
        always_positions=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "mpt",
        {"positions": ("alibi",), **LAYERNORM, "feed_forward": ("gelu",)},
        fused_qkv=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "mpt",
        {
            "positions": ("learned", "sinusoidal", "alibi", "none"),
            **LAYERNORM,
            "feed_forward": ("relu",),
        },
        fused_qkv=True,
        relu_scale=1024.0,
        logit_tolerance=1e-3,
    ),
    Architecture(
        "jais",
        {"positions": ("alibi", "none"), **LAYERNORM, "feed_forward": ("swiglu",)},
        fused_qkv=True,
        always_bias=True,
        always_head=True,
        scales_scores=False,
    ),
    Architecture(
        "starcoder2",
        {"positions": ("rope",), **LAYERNORM, "feed_forward": ("gelu",)},
        always_bias=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "stablelm",
        {"positions": ("rope",), **LAYERNORM, "feed_forward": ("swiglu",), "bias": (False,)},
        always_norm_bias=True,
        always_head=True,
    ),
    Architecture(
        "nemotron",
        {"positions": ROTARY, **LAYERNORM, "feed_forward": ("relu2",)},
        always_norm_bias=True,
        always_head=True,
    ),
)


def architecture_of(options: Options) -> Architecture | None:
    """The architecture of llama.cpp that supports these model options, or None."""
    return find_support(ARCHITECTURES, options)


@dataclass(frozen=True)
class HuggingFaceClass(RuntimeSupport):
    """A causal language model of transformers; its name is that of the class.

    Attributes:
        model_type: name in config.json.
        plain: the feed-forward part has no gate.
    """

    model_type: str
    plain: bool = False


PLAIN = ("gelu", "relu", "silu", "relu2")
GATED = ("swiglu", "geglu")

CLASSES = (
    HuggingFaceClass(
        "LlamaForCausalLM",
        {"positions": ROTARY, **RMSNORM},
        model_type="llama",
    ),
    HuggingFaceClass(
        "Qwen3ForCausalLM",
        {
            "positions": ROTARY,
            **RMSNORM,
            "feed_forward": GATED,
            "qk_norm": ("head",),
            "bias": (False,),
        },
        model_type="qwen3",
    ),
    HuggingFaceClass(
        "Olmo2ForCausalLM",
        {
            "positions": ROTARY,
            **RMSNORM,
            "norm_position": ("reordered",),
            "feed_forward": GATED,
            "qk_norm": ("all",),
            "bias": (False,),
        },
        model_type="olmo2",
    ),
    HuggingFaceClass(
        "GPT2LMHeadModel",
        {
            "positions": ("learned", "sinusoidal", "none"),
            **LAYERNORM,
            "feed_forward": PLAIN,
        },
        model_type="gpt2",
        plain=True,
    ),
    HuggingFaceClass(
        "Starcoder2ForCausalLM",
        {"positions": ("rope",), **LAYERNORM, "feed_forward": PLAIN},
        model_type="starcoder2",
        plain=True,
    ),
    HuggingFaceClass(
        "StableLmForCausalLM",
        {
            "positions": ROTARY,
            **LAYERNORM,
            "feed_forward": GATED,
            "bias": (False,),
        },
        model_type="stablelm",
    ),
)


def class_of(options: Options) -> HuggingFaceClass | None:
    """The class of transformers that supports these model options, or None."""
    return find_support(CLASSES, options)
