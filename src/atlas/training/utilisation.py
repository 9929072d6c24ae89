"""How much of the machine a training uses: its rate against that of a plain matrix product."""

import time

import torch

SIZE = 1536  # large enough to reach the machine's rate, small enough to take milliseconds
TRIES = 5


def matmul_flops(device: torch.device) -> float:
    """Floating point operations a second of the machine's own float32 matrix product."""
    a = torch.ones(SIZE, SIZE, device=device)
    best = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * SIZE**3 / best
