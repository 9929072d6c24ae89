"""How well a GGUF file predicts, computed by llama.cpp in a process of its own.

    python -m atlas.export.check.llama_quality FOLDER

FOLDER holds ``request.json`` (the GGUF file ``model``; the F32 file ``exact``, or null where it is
that itself) and ``windows.npz`` (``inputs``, ``targets``, (N, T), negative where nothing is to be
predicted). The answer goes to ``answer.json``: sums over all targets, in nats, and seconds.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.export.check.llama_runtime import LlamaRuntime

Array = npt.NDArray[np.float64]


def log_softmax(logits: npt.NDArray[np.float32]) -> Array:
    """Log-probabilities (T, V) of logits (T, V)."""
    shifted: Array = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def answer(folder: Path) -> None:
    """Reads the request of a folder and writes the answer beside it."""
    request: dict[str, Any] = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    windows = np.load(folder / "windows.npz")
    length = windows["inputs"].shape[1]
    runtime = LlamaRuntime(request["model"], length)
    exact = LlamaRuntime(request["exact"], length) if request["exact"] else None
    loss = divergence = seconds = 0.0
    same = 0
    for inputs, targets in zip(windows["inputs"], windows["targets"], strict=True):
        there = np.flatnonzero(targets >= 0)
        started = time.perf_counter()
        logits = runtime.logits(inputs.tolist(), 0)[there]
        seconds += time.perf_counter() - started
        ours = log_softmax(logits)
        loss -= float(ours[np.arange(len(there)), targets[there]].sum())
        if exact:
            theirs = log_softmax(exact.logits(inputs.tolist(), 0)[there])
            divergence += float((np.exp(theirs) * (theirs - ours)).sum())
            same += int((theirs.argmax(axis=1) == ours.argmax(axis=1)).sum())
    result = {"loss": loss, "divergence": divergence, "same": same, "seconds": seconds}
    (folder / "answer.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    answer(Path(sys.argv[1]))
