"""Determinism, torch.compile for speed, activation checkpointing for memory.

None of them changes the model.
"""

import logging
import math
import os
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from atlas.errors import AtlasError, one_line
from atlas.model.block import Block, CrossBlock
from atlas.model.config import ModelConfig
from atlas.model.counts import count
from atlas.model.language_model import LanguageModel
from atlas.params.settings import settings

TYPICAL_FLOPS = {"cpu": 1e11, "cuda": 1e14}  # per second
MIN_SECONDS = 300.0  # of training, to earn back a minute of compilation


def make_deterministic(kernels: Path) -> None:
    """Make equal inputs give equal bytes, also on a GPU; keep compiled kernels in a folder."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kernels))


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a model, first to last; empty for other models."""
    return [part for part in model.modules() if isinstance(part, Block | CrossBlock)]


def checkpoint_activations(model: LanguageModel) -> None:
    """Make each block save only its input and recompute the rest in the backward pass.

    Activations of one block instead of all are in memory, for a third more operations
    (Chen et al. 2016, arXiv:1604.06174).
    """
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def should_compile(config: ModelConfig, tokens: int, device: torch.device) -> bool:
    """Decide whether training on this many tokens is long enough for torch.compile.

    ``ATLAS_COMPILE`` decides if it is 0 or 1. Otherwise the estimated time does: operations divided
    by a fixed typical speed, not the measured one, so that equal params give equal results.
    """
    choice = settings().compile
    if choice == "auto":
        seconds = tokens * count(config).training_flops / TYPICAL_FLOPS.get(device.type, math.inf)
        return seconds > MIN_SECONDS and compiler_works(device)
    if choice == "1" and not compiler_works(device):
        raise AtlasError("ATLAS_COMPILE=1: install a C++ compiler, or use 0 or auto")
    return choice == "1"


def compiler_works(device: torch.device) -> bool:
    """Try torch.compile on one operation; log the reason if it fails."""
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:  # compiler, linker and Triton each raise their own kind
        reason = one_line(error)[:120]
        logging.getLogger(__name__).warning(
            "torch.compile does not work here (%s); training runs uncompiled", reason
        )
        return False
    return True


def compile_loss(loss: nn.Module, processes: int) -> None:
    """Compile the loss of a model in place, at its first call.

    With several processes each block is compiled on its own, so that its gradients can be sent
    while those of the next block are computed.
    """
    for part in blocks_of(loss) if processes > 1 else [loss]:
        part.compile(dynamic=False)
