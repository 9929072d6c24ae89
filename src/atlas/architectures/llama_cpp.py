"""Which combinations of model options llama.cpp can run, and as which of its architectures.

One table for everyone: the schema refuses what no row fits before any work is done, and the
export writes a model as the row that fits. Each row was run: PyTorch's logits against
llama.cpp's (tests/export/check/test_against_llama_cpp.py repeats it).
"""

from dataclasses import dataclass

from atlas.architectures.expressible import Expressible, Options, fitting

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
    return fitting(ARCHITECTURES, options)
