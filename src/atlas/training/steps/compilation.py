"""What makes the same model faster, or smaller in memory: torch.compile, and recomputation."""

import os
import sys
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from atlas.errors import AtlasError, one_line
from atlas.model.block import Block, CrossBlock
from atlas.model.config import ModelConfig
from atlas.model.counts import count
from atlas.model.language_model import LanguageModel
from atlas.training.steps.world import World

VARIABLE = "ATLAS_COMPILE"
RATES = {"cpu": 1e11, "cuda": 1e14}  # operations a second, roughly, of a usual machine
REPAID = 300.0  # seconds of training in which the minute of a compilation is won back


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer, from the first to the last; none of another model."""
    return [part for part in model.modules() if isinstance(part, Block | CrossBlock)]


def recompute_activations(model: LanguageModel) -> None:
    """Has each block keep its input alone, and compute the rest again for the backward pass.

    Chen et al. 2016, arXiv:1604.06174: the memory of one block in place of that of all, for a
    third more operations.
    """
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compilation_pays(config: ModelConfig, tokens: int, device: torch.device) -> bool:
    """Whether a training on so many tokens is long enough for torch.compile.

    ``ATLAS_COMPILE`` decides if it is 0 or 1. Else the operations do, at the rate of a usual
    machine and not at that of this one on this day: equal params give equal results.

    Raises:
        AtlasError: ``ATLAS_COMPILE`` is something else, or asks for what does not work here.
    """
    match os.environ.get(VARIABLE, "auto"):
        case "0":
            return False
        case "1":
            if not _compiler_works(device):
                raise AtlasError(f"{VARIABLE}=1: give 0 or auto, or a compiler that it can use")
            return True
        case "auto":
            seconds = tokens * count(config).training_flops / RATES.get(device.type, 1e12)
            return seconds > REPAID and device.type in RATES and _compiler_works(device)
        case value:
            raise AtlasError(f"{VARIABLE}={value}: give 0, 1 or auto")


def _compiler_works(device: torch.device) -> bool:
    """Tries torch.compile on a single addition; says why where it does not work."""
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:  # of the compiler, the linker, Triton: each has its own kind
        reason = one_line(error)[:120]
        print(f"note: torch.compile does not work here ({reason}): eager", file=sys.stderr)
        return False
    return True


def compile_parts(loss: nn.Module, world: World) -> None:
    """Has the loss of a model compiled at its first call, in place: whole, or block by block.

    Where several processes train together gradients are sent round block by block, while those
    of the next one are computed.
    """
    for part in blocks_of(loss) if world.size > 1 else [loss]:
        part.compile(dynamic=False)
