"""Which combinations of model options llama.cpp can run, and as which of its architectures.

One table for everyone: the schema refuses what no row fits before any work is done, and the
export writes a model as the row that fits. Each row was run: PyTorch's logits against
llama.cpp's (tests/export/test_against_llama_cpp.py repeats it).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One architecture of llama.cpp and the model options that it can express.

    Attributes:
        name: llama.cpp's own name, the value of ``general.architecture`` in a GGUF file.
        requires: value of each model option that it fixes; options not named are free.
        adjacent_rope: its RoPE rotates adjacent pairs of a head instead of its two halves,
            so the rows of the query and key weights have to be permuted.
        fused_qkv: queries, keys and values are one tensor.
        always_bias: biases must be in the file, as zeros where the model has none.
        logit_tolerance: largest difference of F32 logits to PyTorch's that its own
            arithmetic explains (ggml computes GELU from a table in half precision).
    """

    name: str
    requires: Options
    adjacent_rope: bool = False
    fused_qkv: bool = False
    always_bias: bool = False
    logit_tolerance: float = 1e-4

    def misfits(self, options: Options) -> dict[str, Any]:
        """The options that would have to change, with the value that each needs."""
        return {key: value for key, value in self.requires.items() if options[key] != value}


LLAMA = {"positions": "rope", "norm": "rmsnorm", "feed_forward": "swiglu"}
GPT2 = {"positions": "learned", "norm": "layernorm", "feed_forward": "gelu"}

ARCHITECTURES = (
    Architecture("llama", {**LLAMA, "qk_norm": False}, adjacent_rope=True),
    Architecture("qwen3", {**LLAMA, "qk_norm": True, "bias": False}),
    Architecture(
        "gpt2",
        {**GPT2, "qk_norm": False},
        fused_qkv=True,
        always_bias=True,
        logit_tolerance=5e-3,
    ),
)


def architecture_of(options: Options) -> Architecture | None:
    """The architecture that can express these model options, None where there is none."""
    return next((a for a in ARCHITECTURES if not a.misfits(options)), None)


def nearest_change(options: Options) -> str:
    """The fewest changes that make a model exportable, as ``model.norm=layernorm ...``."""
    misfits = min((a.misfits(options) for a in ARCHITECTURES), key=len)
    return " ".join(f"model.{key}={str(value).lower()}" for key, value in misfits.items())
