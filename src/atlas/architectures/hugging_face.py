"""Which combinations of model options transformers can run, and as which of its classes.

As ``llama_cpp`` has it for llama.cpp; tests/export/hugging_face repeats each row.
"""

from dataclasses import dataclass

from atlas.architectures.expressible import Expressible, Options, fitting


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
ROTARY = ("rope", "none")  # none is RoPE whose angles are scaled down to nothing

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
            "norm_place": ("branch",),
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
