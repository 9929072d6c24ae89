"""How fast a training is, and how much of the machine it uses."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from atlas.training.safety.progress import Progress

# Large enough to reach a device's rate, small enough to take milliseconds.
SIZES = {"cpu": 1536, "cuda": 8192}
TRIES = 5


def matmul_flops(device: torch.device, kind: torch.dtype = torch.float32) -> float:
    """Floating point operations a second of a device's own matrix product, the best of a few."""
    size = SIZES.get(device.type, SIZES["cpu"])
    a = torch.ones(size, size, device=device, dtype=kind)
    best = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        (a @ a)[0, 0].item()  # which waits for a GPU
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


class Speed:
    """Tokens a second of the steps since it was last read, validation and writing left out."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0

    @contextmanager
    def steps_of(self, progress: Progress) -> Iterator[None]:
        """Times what is done within, and counts the tokens by which training gets on."""
        started, before = time.perf_counter(), progress.tokens
        yield
        self._tokens += progress.tokens - before
        self._seconds += time.perf_counter() - started

    def read(self) -> float:
        """Tokens a second; starts anew."""
        speed = self._tokens / self._seconds if self._seconds else 0.0  # no step was made
        self._tokens, self._seconds = 0, 0.0
        return speed
