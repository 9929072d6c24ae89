"""Which combinations of model options llama.cpp can run, and as which of its architectures.

One table for everyone: the schema refuses what no row fits before any work is done, and the
export writes a model as the row that fits. Each row was run: PyTorch's logits against
llama.cpp's (tests/export/check/test_against_llama_cpp.py repeats it).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]
Allowed = Mapping[str, tuple[Any, ...]]

# What holds for each row unless it says otherwise: options not named anywhere are free.
COMMON: Allowed = {
    "kind": ("decoder",),
    "norm_place": ("pre",),
    "qk_norm": ("none",),
    "window": (0,),  # llama.cpp has no architecture that looks back so far in every block
}
HALF_PRECISION_GELU = 5e-3  # ggml computes GELU from a table in half precision


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp and the model options that it can express.

    Attributes:
        name: llama.cpp's own name, the value of ``general.architecture`` in a GGUF file.
        allows: values of each model option that it can express, the usual one first; options not
            named are free. Together with ``COMMON``.
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

    name: str
    allows: Allowed
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

    @property
    def rotates(self) -> bool:
        """Whether it has RoPE, be it turned down to nothing."""
        return "rope" in self.allows["positions"]

    def misfits(self, options: Options) -> dict[str, Any]:
        """The options that would have to change, with the value that each needs."""
        allowed = {**COMMON, **self.allows}
        return {key: values[0] for key, values in allowed.items() if options[key] not in values}


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
            "norm_place": ("branch",),
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
    return next((a for a in ARCHITECTURES if not a.misfits(options)), None)


def combination(options: Options) -> str:
    """The options on which it depends, as ``learned + rmsnorm + swiglu``, unusual ones named."""
    if options["kind"] != "decoder":
        return f"model.kind={options['kind']}"
    parts = [str(options[key]) for key in ("positions", "norm", "feed_forward")]
    parts += [f"{key}={options[key]}" for key, usual in COMMON.items() if options[key] not in usual]
    parts += [key for key in ("bias", "tied_head") if options[key]]
    return " + ".join(parts)


def nearest_change(options: Options) -> str:
    """The fewest changes that make a model exportable, as ``model.norm=layernorm ...``."""
    misfits = min((a.misfits(options) for a in ARCHITECTURES), key=len)
    return " ".join(f"model.{key}={str(value).lower()}" for key, value in misfits.items())
