"""The interface of every model, and the device it runs on.

The device is ``ATLAS_DEVICE``, or else a CUDA GPU if there is one, or else the CPU.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from atlas.errors import TORCHRUN, AtlasError
from atlas.model.config import ModelConfig
from atlas.params.settings import settings


def choose_device() -> torch.device:
    """Return the device to run on; each process of a machine gets its own GPU."""
    name = settings().device or ("cuda" if torch.cuda.is_available() else "cpu")
    if TORCHRUN in os.environ and name.startswith("cuda"):
        if name != "cuda":
            raise AtlasError(f"ATLAS_DEVICE={name}: each process needs its own GPU; use cuda")
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):
        found = ", ".join(["cpu", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))])
        raise AtlasError(f"ATLAS_DEVICE={name}: no such device (available: {found})") from None
    return device


class LanguageModel(nn.Module, ABC):
    """Base class of all models, which map ids to logits of the next token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V): for each of ``ids`` (B, T), those of the token after it.

        ``mask`` (B, T) is False in the padding, on either side. None is fine for padding on the
        right, which no token sees.
        """

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Disable dropout inside the block, then restore the mode."""
        before = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(before)

    def parameter_count(self) -> int:
        """Number of weights, a tied head counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


def _values_are_cheap(tensor: Tensor) -> bool:
    """Return True if values are cheap to read: on the CPU, and not while compiling."""
    return not torch.compiler.is_compiling() and tensor.device.type == "cpu"


def check_ids(config: ModelConfig, ids: Tensor, mask: Tensor | None, before: int = 0) -> None:
    """Check the inputs of a model, which has ``before`` tokens in its cache.

    Values are checked only on the CPU and outside compilation.
    """
    if ids.dim() != 2 or not ids.numel():
        raise ValueError(f"ids of shape {tuple(ids.shape)}: give (batch, tokens), each at least 1")
    if before + ids.shape[1] > config.context_length:
        raise ValueError(
            f"{before + ids.shape[1]} tokens, and model.context_length is {config.context_length}"
        )
    if mask is not None and (mask.shape != ids.shape or mask.dtype != torch.bool):
        raise ValueError(
            f"a mask of {mask.dtype} of shape {tuple(mask.shape)} for ids of shape "
            f"{tuple(ids.shape)}: give a truth value for each, True for a token"
        )
    if not _values_are_cheap(ids):
        return
    lowest, highest = (int(end) for end in ids.aminmax())
    if lowest < 0 or highest >= config.vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"the id {wrong} is not in the vocabulary: 0 to {config.vocab_size - 1}")
    if mask is not None:
        check_rows(mask, "of the mask has no token: leave the row out")


def check_rows(found: Tensor, missing: str) -> None:
    """Check that every row of ``found`` (B, T) has a True, on the CPU and outside compilation."""
    if _values_are_cheap(found) and not found.any(dim=1).all():
        row = int(found.any(dim=1).logical_not().nonzero()[0])
        raise ValueError(f"row {row} {missing}")
