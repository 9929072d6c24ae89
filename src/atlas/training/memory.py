"""Check that training fits in memory; otherwise suggest a change in one line."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import nn

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.counts import FLOAT, training_bytes
from atlas.model.weights import make_model
from atlas.params.schema import TrainParams
from atlas.training.distributed import DistributedContext
from atlas.training.lora import add_lora
from atlas.training.start import freeze

CPU_OUT_OF_MEMORY = "can't allocate memory"  # PyTorch raises a plain RuntimeError on a CPU
SMALLER_MODEL = "a smaller model, such as half of model.d_model or of model.n_layer"
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
# Values an optimizer keeps per weight. Muon keeps one for most weights and two for the rest.
MOMENTS = {"adamw": 2, "muon": 2, "sgd": 1}


def available_memory(context: DistributedContext) -> int:
    """Free bytes on the device; on a CPU, this process's share of the machine's."""
    if context.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(context.device)
        return free
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", context.size))
    return int(psutil.virtual_memory().available) // processes


def check_memory(
    config: ModelConfig, train: TrainParams, context: DistributedContext, available: int
) -> None:
    """Reject a training run that needs more than ``available`` bytes, before the model is built.

    The message proposes a change that fits. Activations are counted for decoders only.
    """
    needed = _needed_bytes(config, train, context)
    if needed > available:
        raise AtlasError(
            f"train.batch_size: {_micro_batch(train, context)} windows at once need about "
            f"{needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB are free; "
            f"{suggest_change(config, train, context, available)}"
        )


def suggest_change(
    config: ModelConfig, train: TrainParams, context: DistributedContext, available: int
) -> str:
    """Suggest smaller micro-batches, then activation checkpointing, then a smaller model."""
    for checkpointing in (train.activation_checkpointing, True):
        for steps in _possible_accumulations(train):
            changes = {"activation_checkpointing": checkpointing, "grad_accum_steps": steps}
            if _needed_bytes(config, train.model_copy(update=changes), context) <= available:
                added = checkpointing and not train.activation_checkpointing
                setting = "train.activation_checkpointing=true " if added else ""
                return f"try {setting}train.grad_accum_steps={steps}"
    return f"try {SMALLER_MODEL}"


def reuse_memory() -> None:
    """Keep freed memory for later tensors, where the C library is glibc.

    By default large tensors get new memory every time, which the system first fills with zeros.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


@contextmanager
def explain_out_of_memory(train: TrainParams, device: torch.device) -> Iterator[None]:
    """Turn an out-of-memory error into one line with a suggestion."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is a subclass
        if not isinstance(error, torch.OutOfMemoryError) and CPU_OUT_OF_MEMORY not in str(error):
            raise
        advice = "train.activation_checkpointing=true"
        if more := _possible_accumulations(train)[1:]:
            advice = f"train.grad_accum_steps={more[0]}"
        elif train.activation_checkpointing:
            advice = SMALLER_MODEL
        raise AtlasError(
            f"train.batch_size: {train.batch_size // train.grad_accum_steps} windows at once need "
            f"more memory than {device} has; try {advice} (the last checkpoint is kept)"
        ) from None


def _possible_accumulations(train: TrainParams) -> list[int]:
    """Values of ``grad_accum_steps`` that divide the batch, from the current one up."""
    candidates = range(train.grad_accum_steps, train.batch_size + 1)
    return [steps for steps in candidates if train.batch_size % steps == 0]


def _micro_batch(train: TrainParams, context: DistributedContext) -> int:
    """Windows that one process computes at once."""
    return max(1, min(train.batch_size // train.grad_accum_steps, train.batch_size // context.size))


def _needed_bytes(config: ModelConfig, train: TrainParams, context: DistributedContext) -> int:
    """Bytes that one process needs; frozen weights have no gradient and no optimizer state."""
    with torch.device("meta"):  # takes no memory
        model = make_model(config)
        freeze(model, train.freeze)
        add_lora(model, train.lora, train.seed)
    weights, trained = model.parameter_count(), trained_count(model)
    held = FLOAT * (weights + (1 + MOMENTS[train.optimizer]) * trained)
    activations = 0
    if config.kind == "decoder":
        activations = training_bytes(
            config.model_copy(update={"context_length": config.sequence_length}),
            _micro_batch(train, context),
            activation_checkpointing=train.activation_checkpointing,
        )["activations"]
    return held // (context.size if context.is_sharded else 1) + activations


def trained_count(model: nn.Module) -> int:
    """Number of weights that are not frozen."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def peak_memory(device: torch.device) -> int:
    """Peak memory of this process on its device so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
