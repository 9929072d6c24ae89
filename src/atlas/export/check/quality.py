"""What a smaller type costs: how well a GGUF file predicts held-out text, in llama.cpp itself."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.errors import AtlasError
from atlas.export.runtime_process import RuntimeModule
from atlas.tokens.windows import Batch

MODULE = RuntimeModule("llama.cpp", "atlas.export.check.llama_quality")
MOST_APART = 1e-3  # of the perplexity of the F32 file from our own, relative


@dataclass(frozen=True)
class Quality:
    """How well a GGUF file predicts.

    Attributes:
        perplexity: over the windows, computed by llama.cpp.
        kl_divergence: from the F32 file's predictions to this one's, nats a token; 0 for itself.
        top_1_agreement: share of the tokens before which both find the same one likeliest.
        tokens_per_second: that llama.cpp reads, logits copied included.
    """

    perplexity: float
    kl_divergence: float
    top_1_agreement: float
    tokens_per_second: float


def measure(gguf: Path, exact: Path, batches: Sequence[Batch[Any]]) -> Quality:
    """Runs a GGUF file over windows, and the F32 file beside it.

    Args:
        gguf: the file.
        exact: the F32 file of the same model; may be the same one.
        batches: windows of held-out text, of the model's context length.

    Raises:
        AtlasError: the runtime crashed or refused the file.
    """
    inputs, targets = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    request = {
        "model": str(gguf.resolve()),
        "exact": None if gguf == exact else str(exact.resolve()),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "windows.npz", inputs=inputs, targets=targets)
        answer = MODULE.ask(request, folder, file=gguf)
    tokens = sum(batch.predicted() for batch in batches)
    return Quality(
        perplexity=math.exp(answer["loss"] / tokens),
        kl_divergence=answer["divergence"] / tokens,
        top_1_agreement=1.0 if gguf == exact else answer["same"] / tokens,
        tokens_per_second=inputs.size / answer["seconds"],
    )


def refuse_perplexity(gguf: Path, quality: Quality, ours: float) -> None:
    """Stops the export of an F32 file that predicts otherwise than the model.

    Raises:
        AtlasError: the perplexities differ by more than a thousandth.
    """
    if not abs(quality.perplexity / ours - 1) <= MOST_APART:
        raise AtlasError(
            f"{gguf}: its perplexity in llama.cpp is {quality.perplexity:.5g}, the model's "
            f"{ours:.5g}; not exported"
        )
