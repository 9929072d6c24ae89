"""Whether a training fits into memory, and what it took."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.counts import training_bytes
from atlas.params import TrainParams

NO_MEMORY = "can't allocate memory"  # of PyTorch's allocator for CPUs, a plain RuntimeError


def available_bytes(device: torch.device) -> int:
    """Free memory of a device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return int(psutil.virtual_memory().available)


def check_memory(config: ModelConfig, train: TrainParams, processes: int, available: int) -> None:
    """Refuses a training that cannot fit, before it begins.

    Args:
        config: of the model; only decoders are counted.
        train: batch and parts.
        processes: that share a batch, each with its own memory.
        available: bytes of this process.

    Raises:
        AtlasError: with the largest part of the batch that would fit.
    """
    if config.kind != "decoder":
        return
    at_once = min(train.batch_size // train.accumulation, train.batch_size // processes)
    needed = _bytes(config, train, max(1, at_once))
    if needed > available:
        raise AtlasError(
            f"train.batch_size: {at_once} windows at once need about {needed / 1e9:.1f} GB, and "
            f"{available / 1e9:.1f} GB are free; {proposal(config, train, available)}"
        )


def proposal(config: ModelConfig, train: TrainParams, available: int) -> str:
    """What would fit: the batch in more parts, else activations computed again, else less."""
    for recompute in (train.recompute, True):
        tried = train.model_copy(update={"recompute": recompute})
        for parts in range(train.accumulation, train.batch_size + 1):
            if train.batch_size % parts == 0 and (
                _bytes(config, tried, train.batch_size // parts) <= available
            ):
                again = "" if recompute == train.recompute else "train.recompute=true "
                return f"try {again}train.accumulation={parts}"
    return "try a smaller model, such as half of model.d_model or of model.n_layer"


@contextmanager
def memory_errors(train: TrainParams, device: torch.device) -> Iterator[None]:
    """Turns running out of memory into one line with a smaller proposal.

    Raises:
        AtlasError: it happened.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and NO_MEMORY not in str(error):
            raise
        at_once = train.batch_size // train.accumulation
        smaller = next(
            (p for p in range(train.accumulation + 1, train.batch_size + 1)
             if train.batch_size % p == 0), None
        )  # fmt: skip
        advice = f"try train.accumulation={smaller}" if smaller else "try train.recompute=true"
        raise AtlasError(
            f"train.batch_size: {at_once} windows at once are more than the memory of {device} "
            f"holds; {advice} (the last checkpoint stays)"
        ) from None


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far, on its device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _bytes(config: ModelConfig, train: TrainParams, windows: int) -> int:
    return sum(training_bytes(config, windows, recompute=train.recompute).values())
