"""Which combinations of model options transformers can run, and as which of its classes.

As ``llama_cpp`` has it for llama.cpp; tests/export/hugging_face repeats each row.

The formats in which a model can be exported, and what they ask of its widths.

What a runtime can express: values of model options, those not named being free.

Which combinations of model options llama.cpp can run, and as which of its architectures.

One table for everyone: the schema refuses what no row fits before any work is done, and the
export writes a model as the row that fits. Each row was run: PyTorch's logits against
llama.cpp's (tests/export/check/test_against_llama_cpp.py repeats it).
"""

import difflib
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
WHOLE = ("f32", "f16", "bf16")  # each value by itself
ROW = 32  # values of a row that share a scale in any other
K_ROW = 256  # that do in a K type


def known_format(name: str) -> str:
    """The name of a format, if it is one.

    Raises:
        ValueError: it is none; says which there are.
    """
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"one of {', '.join(FORMATS)}{hint}")
    return name


def gguf_formats(formats: Iterable[str]) -> list[GgufFormat]:
    """Those of GGUF files, without their prefix."""
    return [cast(GgufFormat, name.removeprefix(GGUF)) for name in formats if name.startswith(GGUF)]


def quantised(formats: Iterable[str]) -> list[str]:
    """Those in which values share a scale, so that rows must be multiples of ``ROW``."""
    return [f"{GGUF}{name}" for name in gguf_formats(formats) if name not in WHOLE]


def has_k_types(name: str) -> bool:
    """Whether a format is a mix of K types (``q4_k_m``), or a type is one (``q4_k``)."""
    return "_k" in name


Options = Mapping[str, Any]
Allowed = Mapping[str, tuple[Any, ...]]

# What holds for each row unless it says otherwise.
COMMON: Allowed = {
    "kind": ("decoder",),
    "norm_position": ("pre",),
    "qk_norm": (None,),
    "window": (None,),  # no runtime has a model that looks back so far in every block
}


@dataclass(frozen=True)
class Expressible:
    """A kind of model that a runtime has.

    Attributes:
        name: that the runtime calls it by.
        allows: values of each model option that it can express, the usual one first; options not
            named are free. Together with ``COMMON``.
    """

    name: str
    allows: Allowed

    @property
    def allowed(self) -> Allowed:
        """With what holds for each."""
        return {**COMMON, **self.allows}

    @property
    def rotates(self) -> bool:
        """Whether it has RoPE, be it turned down to nothing."""
        return "rope" in self.allowed["positions"]

    def misfits(self, options: Options) -> dict[str, Any]:
        """The options that would have to change, with the value that each needs."""
        return {
            key: values[0] for key, values in self.allowed.items() if options[key] not in values
        }


Row = TypeVar("Row", bound=Expressible)


def fitting(rows: Sequence[Row], options: Options) -> Row | None:
    """The first row that can express these model options, None where there is none."""
    return next((row for row in rows if not row.misfits(options)), None)


def nearest_change(rows: Sequence[Expressible], options: Options) -> str:
    """The fewest changes after which a row can, as ``model.norm=layernorm ...``."""
    misfits = min((row.misfits(options) for row in rows), key=len)
    return " ".join(f"model.{key}={_shown(value)}" for key, value in misfits.items())


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower()


def combination(options: Options) -> str:
    """The options on which it depends, as ``learned + rmsnorm + swiglu``, unusual ones named."""
    if options["kind"] != "decoder":
        return f"model.kind={options['kind']}"
    parts = [str(options[key]) for key in ("positions", "norm", "feed_forward")]
    parts += [f"{key}={options[key]}" for key, usual in COMMON.items() if options[key] not in usual]
    parts += [key for key in ("bias", "tied_head") if options[key]]
    return " + ".join(parts)


HALF_PRECISION_GELU = 5e-3  # ggml computes GELU from a table in half precision


@dataclass(frozen=True)
class Architecture(Expressible):
    """One architecture of llama.cpp; its name is ``general.architecture`` in a GGUF file.

    Attributes:
        adjacent_rope: its RoPE rotates adjacent pairs of a head instead of its two halves,
            so the rows of the query and key weights have to be permuted.
        fused_qkv: queries, keys and values are one tensor.
        always_bias: biases must be in the file, as zeros where the model has none.
        always_norm_bias: those of the norms must.
        always_head: the head must be in the file, as a copy where it is tied.
        always_positions: a table of positions must be in the file, of zeros where there is none.
        always_gated: its feed-forward part has a gate, so a plain activation is written as a gate
            whose other half is the same for every input.
        relu_scale: it has no ReLU; its own activation of an input so many times as large comes
            near, divided by the same. Beyond it, what is close to zero would lose bits.
        scales_scores: whether it divides the scores by sqrt(D).
        scales_embedding: whether it multiplies the embedding by sqrt(C).
        logit_tolerance: largest difference of F32 logits to PyTorch's that its own
            arithmetic explains.
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


ROTARY = ("rope", "none")  # none is RoPE whose angles are scaled down to nothing
RMS = {"norm": ("rmsnorm",)}
LAYER = {"norm": ("layernorm",)}

ARCHITECTURES = (
    Architecture(
        "llama",
        {"positions": ROTARY, **RMS, "feed_forward": ("swiglu", "silu", "relu")},
        adjacent_rope=True,
        always_gated=True,
        relu_scale=4096.0,
    ),
    Architecture(
        "qwen3",
        {
            "positions": ROTARY,
            **RMS,
            "feed_forward": ("swiglu",),
            "qk_norm": ("head",),
            "bias": (False,),
        },
    ),
    Architecture(
        "olmo2",
        {
            "positions": ROTARY,
            **RMS,
            "norm_position": ("reordered",),
            "feed_forward": ("swiglu",),
            "qk_norm": ("all",),
            "bias": (False,),
        },
        always_head=True,
    ),
    Architecture(
        "arcee",
        {"positions": ROTARY, **RMS, "feed_forward": ("relu2",), "bias": (False,)},
        adjacent_rope=True,
    ),
    Architecture(
        "gemma",
        {
            "positions": ROTARY,
            **RMS,
            "feed_forward": ("geglu",),
            "bias": (False,),
            "tied_head": (True,),
        },
        scales_embedding=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "refact", {"positions": ("alibi",), **RMS, "feed_forward": ("swiglu",), "bias": (False,)}
    ),
    Architecture(
        "gpt2",
        {
            "positions": ("learned", "sinusoidal", "none"),
            **LAYER,
            "feed_forward": ("gelu",),
        },
        fused_qkv=True,
        always_bias=True,
        always_positions=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "mpt",
        {"positions": ("alibi",), **LAYER, "feed_forward": ("gelu",)},
        fused_qkv=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "mpt",
        {
            "positions": ("learned", "sinusoidal", "alibi", "none"),
            **LAYER,
            "feed_forward": ("relu",),
        },
        fused_qkv=True,
        relu_scale=1024.0,
        logit_tolerance=1e-3,
    ),
    Architecture(
        "jais",
        {"positions": ("alibi", "none"), **LAYER, "feed_forward": ("swiglu",)},
        fused_qkv=True,
        always_bias=True,
        always_head=True,
        scales_scores=False,
    ),
    Architecture(
        "starcoder2",
        {"positions": ("rope",), **LAYER, "feed_forward": ("gelu",)},
        always_bias=True,
        logit_tolerance=HALF_PRECISION_GELU,
    ),
    Architecture(
        "stablelm",
        {"positions": ("rope",), **LAYER, "feed_forward": ("swiglu",), "bias": (False,)},
        always_norm_bias=True,
        always_head=True,
    ),
    Architecture(
        "nemotron",
        {"positions": ROTARY, **LAYER, "feed_forward": ("relu2",)},
        always_norm_bias=True,
        always_head=True,
    ),
)


def architecture_of(options: Options) -> Architecture | None:
    """The architecture that can express these model options, None where there is none."""
    return fitting(ARCHITECTURES, options)


@dataclass(frozen=True)
class HuggingFaceClass(Expressible):
    """A class of transformers, a causal language model.

    Attributes:
        model_type: its name in config.json.
        plain: whether its feed-forward part has no gate.
    """

    model_type: str
    plain: bool = False


PLAIN = ("gelu", "relu", "silu", "relu2")
GATED = ("swiglu", "geglu")

CLASSES = (
    HuggingFaceClass(
        "LlamaForCausalLM",
        {"positions": ROTARY, "norm": ("rmsnorm",)},
        model_type="llama",
    ),
    HuggingFaceClass(
        "Qwen3ForCausalLM",
        {
            "positions": ROTARY,
            "norm": ("rmsnorm",),
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
            "norm": ("rmsnorm",),
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
            "norm": ("layernorm",),
            "feed_forward": PLAIN,
        },
        model_type="gpt2",
        plain=True,
    ),
    HuggingFaceClass(
        "Starcoder2ForCausalLM",
        {"positions": ("rope",), "norm": ("layernorm",), "feed_forward": PLAIN},
        model_type="starcoder2",
        plain=True,
    ),
    HuggingFaceClass(
        "StableLmForCausalLM",
        {
            "positions": ROTARY,
            "norm": ("layernorm",),
            "feed_forward": GATED,
            "bias": (False,),
        },
        model_type="stablelm",
    ),
)


def class_of(options: Options) -> HuggingFaceClass | None:
    """The class that can express these model options, None where there is none."""
    return fitting(CLASSES, options)
