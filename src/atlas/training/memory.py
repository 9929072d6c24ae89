"""Why a training cannot go on, in one line.

Whether a training fits into memory, and what it took.
"""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import nn

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.counts import training_bytes
from atlas.params.schema import TrainParams
from atlas.tokens.windows import TrainingWindows
from atlas.training.distributed import World
from atlas.training.metrics import Progress
from atlas.training.train_step import Step

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
    for activation_checkpointing in (train.activation_checkpointing, True):
        for parts in _parts(train):
            tried = train.model_copy(
                update={
                    "activation_checkpointing": activation_checkpointing,
                    "grad_accum_steps": parts,
                }
            )
            if _bytes(config, tried, world) <= available:
                again = (
                    ""
                    if activation_checkpointing == train.activation_checkpointing
                    else "train.activation_checkpointing=true "
                )
                return f"try {again}train.grad_accum_steps={parts}"
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
        advice = (
            SMALLER if train.activation_checkpointing else "train.activation_checkpointing=true"
        )
        for parts in _parts(train)[1:2]:
            advice = f"train.grad_accum_steps={parts}"
        raise AtlasError(
            f"train.batch_size: {train.batch_size // train.grad_accum_steps} windows at once are "
            f"more than the memory of {device} holds; try {advice} (the last checkpoint stays)"
        ) from None


def _parts(train: TrainParams) -> list[int]:
    """The numbers of parts that a batch can be cut in, from that of now on."""
    return [
        n for n in range(train.grad_accum_steps, train.batch_size + 1) if train.batch_size % n == 0
    ]


def _at_once(train: TrainParams, world: World) -> int:
    """The windows that a process computes at once."""
    return max(1, min(train.batch_size // train.grad_accum_steps, train.batch_size // world.size))


def _bytes(config: ModelConfig, train: TrainParams, world: World) -> int:
    """What a process needs."""
    needed = training_bytes(
        config,
        _at_once(train, world),
        activation_checkpointing=train.activation_checkpointing,
        moments=MOMENTS[train.optimizer],
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


WORST = 3
DIVERGED = 2.0  # times the loss of guessing
ADVICE = "Lower train.lr (of Muon train.muon_lr as well), or lengthen train.warmup_steps"


def not_finite(step: int, made: Step, model: nn.Module, data: TrainingWindows) -> str:
    """What is known of a step (0-based) whose loss or gradient is NaN or infinite."""
    norms = {
        name: parameter.grad.norm().item()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    # A NaN compares with nothing, so it is put first by hand.
    worst = sorted(norms, key=lambda name: (norms[name] == norms[name], -norms[name]))[:WORST]
    windows = [str(number) for number, _ in data.places(step)[:4]]
    return (
        f"training stopped before the update of step {step + 1}: the loss is {made.loss:g}, the "
        f"norm of the gradient {made.norm:g} (windows {', '.join(windows)}, ...; largest "
        f"gradients: {', '.join(f'{name} {norms[name]:g}' for name in worst)}). {ADVICE}; the "
        "last checkpoint stays"
    )


def divergence(progress: Progress, vocab_size: int) -> str | None:
    """What is wrong with a loss that is far above that of guessing; None if it is not."""
    guessing = math.log(vocab_size)
    first, last = progress.train_rows[0]["loss"], progress.train_rows[-1]["loss"]
    if last <= DIVERGED * max(first, guessing):
        return None
    return (
        f"training stopped after step {progress.step}: the loss is {last:.4g}, and guessing would "
        f"give {guessing:.3g}. {ADVICE}"
    )
