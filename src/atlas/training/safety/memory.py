"""Whether a training fits into memory, and what it took."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.counts import training_bytes
from atlas.params import TrainParams
from atlas.training.steps.world import World

NO_MEMORY = "can't allocate memory"  # of PyTorch's allocator for CPUs, a plain RuntimeError
SMALLER = "a smaller model, such as half of model.d_model or of model.n_layer"
# Values that an optimizer keeps of each weight; Muon one of most, AdamW of its rest two.
MOMENTS = {"adamw": 2, "muon": 2, "sgd": 1}


def available_bytes(world: World) -> int:
    """The free memory of a device; of a machine's own each of its processes has an even share."""
    if world.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(world.device)
        return free
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    return int(psutil.virtual_memory().available) // here


def check_memory(config: ModelConfig, train: TrainParams, world: World, available: int) -> None:
    """Refuses a training that cannot fit, before its model is made.

    Args:
        config: of the model; the activations of decoders alone are counted.
        train: batch and parts.
        world: processes that share a batch, and under FSDP2 the weights as well.
        available: bytes of this process's own.

    Raises:
        AtlasError: with the largest part of the batch that would fit.
    """
    needed = _bytes(config, train, world)
    if needed > available:
        raise AtlasError(
            f"train.batch_size: {_at_once(train, world)} windows at once need about "
            f"{needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free; "
            f"{proposal(config, train, world, available)}"
        )


def proposal(config: ModelConfig, train: TrainParams, world: World, available: int) -> str:
    """What would fit: the batch in more parts, else activations computed again, else less."""
    for recompute in (train.recompute, True):
        for parts in _parts(train):
            tried = train.model_copy(update={"recompute": recompute, "accumulation": parts})
            if _bytes(config, tried, world) <= available:
                again = "" if recompute == train.recompute else "train.recompute=true "
                return f"try {again}train.accumulation={parts}"
    return f"try {SMALLER}"


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
        advice = SMALLER if train.recompute else "train.recompute=true"
        for parts in _parts(train)[1:2]:
            advice = f"train.accumulation={parts}"
        raise AtlasError(
            f"train.batch_size: {train.batch_size // train.accumulation} windows at once are more "
            f"than the memory of {device} holds; try {advice} (the last checkpoint stays)"
        ) from None


def _parts(train: TrainParams) -> list[int]:
    """The numbers of parts that a batch can be cut in, from that of now on."""
    return [n for n in range(train.accumulation, train.batch_size + 1) if train.batch_size % n == 0]


def _at_once(train: TrainParams, world: World) -> int:
    """The windows that a process computes at once."""
    return max(1, min(train.batch_size // train.accumulation, train.batch_size // world.size))


def _bytes(config: ModelConfig, train: TrainParams, world: World) -> int:
    """What a process needs."""
    needed = training_bytes(
        config, _at_once(train, world), recompute=train.recompute, moments=MOMENTS[train.optimizer]
    )
    held = needed["weights"] + needed["gradients"] + needed["optimizer"]
    activations = needed["activations"] if config.kind == "decoder" else 0
    return held // (world.size if world.shards else 1) + activations


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far, on its device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
