"""Quality of a GGUF file in llama.cpp: perplexity, and divergence from the F32 file.

llama.cpp runs in a process of its own::

    python -m atlas.export.check.quality FOLDER

FOLDER holds ``request.json`` (the GGUF file ``model``; the F32 file ``exact``, null where it is the
same) and ``windows.npz`` (``inputs`` and ``targets``, (N, T), negative targets are not predicted).
The process writes ``answer.json``: sums over all targets, in nats, and seconds.
"""

import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError
from atlas.export.check.process import RuntimeProcess
from atlas.export.check.runtimes import LlamaCpp, Logits
from atlas.tokens.windows import TokenBatch

PROCESS = RuntimeProcess("llama.cpp", "atlas.export.check.quality")
PERPLEXITY_TOLERANCE = 1e-3  # relative, between llama.cpp's F32 and PyTorch


@dataclass(frozen=True)
class Quality:
    """How well a GGUF file predicts text, according to llama.cpp."""

    perplexity: float
    kl_divergence: float  # from the F32 file's predictions, nats per token
    top_1_agreement: float  # share of the positions where both find the same token most likely
    tokens_per_second: float  # reading speed, including the copy of the logits


def measure_quality(gguf: Path, exact: Path, batches: Sequence[TokenBatch[Any]]) -> Quality:
    """Run a GGUF file on windows of text and compare it with the F32 file ``exact``."""
    inputs, targets = (np.concatenate([batch[part] for batch in batches]) for part in (0, 1))
    request = {
        "model": str(gguf.resolve()),
        "exact": None if gguf == exact else str(exact.resolve()),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "windows.npz", inputs=inputs, targets=targets)
        answer = PROCESS.ask(request, folder, file=gguf)
    tokens = sum(batch.num_targets() for batch in batches)
    return Quality(
        perplexity=math.exp(answer["loss"] / tokens),
        kl_divergence=answer["divergence"] / tokens,
        top_1_agreement=1.0 if gguf == exact else answer["same"] / tokens,
        tokens_per_second=inputs.size / answer["seconds"],
    )


def check_perplexity(gguf: Path, quality: Quality, expected: float) -> None:
    """Reject an F32 file whose perplexity differs too much from PyTorch's."""
    if not abs(quality.perplexity / expected - 1) <= PERPLEXITY_TOLERANCE:  # NaN fails too
        raise AtlasError(
            f"{gguf}: its perplexity is {quality.perplexity:.5g} in llama.cpp and {expected:.5g} "
            "in PyTorch; not exported"
        )


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Compute log-probabilities (T, V) from logits (T, V)."""
    shifted: npt.NDArray[np.float64] = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def answer_request(folder: Path) -> None:
    """Read request.json and windows.npz of a folder and write answer.json to it."""
    request: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    windows = np.load(folder / "windows.npz")
    length = windows["inputs"].shape[1]
    runtime = LlamaCpp(request["model"], length)
    exact = LlamaCpp(request["exact"], length) if request["exact"] else None
    loss = divergence = seconds = 0.0
    same = 0
    for inputs, targets in zip(windows["inputs"], windows["targets"], strict=True):
        predicted = np.flatnonzero(targets >= 0)
        started = time.perf_counter()
        logits = runtime.logits(inputs.tolist(), 0)[predicted]
        seconds += time.perf_counter() - started
        log_q = log_softmax(logits)
        loss -= float(log_q[np.arange(len(predicted)), targets[predicted]].sum())
        if exact:
            log_p = log_softmax(exact.logits(inputs.tolist(), 0)[predicted])
            divergence += float((np.exp(log_p) * (log_p - log_q)).sum())
            same += int((log_p.argmax(axis=1) == log_q.argmax(axis=1)).sum())
    answer = {"loss": loss, "divergence": divergence, "same": same, "seconds": seconds}
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    answer_request(Path(sys.argv[1]))
