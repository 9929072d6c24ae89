"""Batches on their way to the model: read ahead by workers, in pinned memory for a GPU.

How many read never changes what is read: the n-th batch depends on n alone.
"""

import itertools
import os
from collections.abc import Generator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from atlas.errors import AtlasError
from atlas.tokens.windows import NO_TARGET, Rows, TrainingWindows

VARIABLE = "ATLAS_READERS"
AHEAD = 4  # batches that each worker has ready


class TensorBatch(NamedTuple):
    """A ``Batch`` as tensors: inputs, targets and mask, (B, T) each."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor

    @classmethod
    def of(cls, rows: Tensor, pad: int) -> "TensorBatch":
        """The inputs and targets of windows in rows, (B, T + 1)."""
        targets = rows[:, 1:]
        mask = targets != NO_TARGET
        return cls(rows[:, :-1].where(mask, pad), targets, mask)


class Batches:
    """The batches of training, from the first or from where another run was.

    Attributes:
        windows: that they are made of.
        device: where they go.
        workers: processes that read ahead; 0 reads in this one.
        next: number of the next batch.
    """

    def __init__(self, windows: TrainingWindows, device: torch.device, workers: int) -> None:
        self.windows = windows
        self.device = device
        self.workers = workers
        self.next = 0

    def read(self) -> Generator[TensorBatch, None, None]:
        """Batches without end, from ``next`` on."""
        loader = DataLoader(
            _Steps(self.windows),
            batch_size=None,
            sampler=itertools.count(self.next),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",  # so that copies run beside the computation
            prefetch_factor=AHEAD if self.workers else None,
            generator=torch.Generator(),  # else it would draw from that of dropout
        )
        pad = self.windows.tokens.index.pad
        for rows in loader:
            self.next += 1
            yield TensorBatch.of(rows.to(self.device, non_blocking=True), pad)

    def state_dict(self) -> dict[str, Any]:
        """Where the reading is, and of what."""
        return {"next": self.next, "windows": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state that was saved.

        Raises:
            AtlasError: it is of other data, or of another order.
        """
        ours, theirs = self._identity(), state["windows"]
        if ours != theirs:
            different = [key for key in ours if ours[key] != theirs.get(key)]
            raise AtlasError(
                f"the saved position is of other batches ({', '.join(different)} differ): begin "
                "anew, or go back to the params and data of that run"
            )
        self.next = state["next"]

    def _identity(self) -> dict[str, Any]:
        """All that the n-th batch depends on, but for n."""
        windows, index = self.windows, self.windows.tokens.index
        return {
            "tokens": len(windows.tokens),
            "tokenizer": index.tokenizer_sha256,
            "layout": index.windows,
            "context_length": windows.context_length,
            "batch_size": windows.batch_size,
            "seed": windows.seed,
        }


class _Steps(Dataset[Rows]):
    """The windows of each step, by its number: one array, which travels fastest."""

    def __init__(self, windows: TrainingWindows) -> None:
        self._windows = windows

    def __getitem__(self, step: int) -> Rows:
        return self._windows.rows(step)


def readers(device: torch.device) -> int:
    """``ATLAS_READERS``, the processes that read batches ahead.

    Unless it is set, none for a CPU, which the reading of memory maps does not keep waiting.

    Raises:
        AtlasError: it is no number.
    """
    default = "0" if device.type == "cpu" else "2"
    value = os.environ.get(VARIABLE, default)
    if not value.isdecimal():
        raise AtlasError(f"{VARIABLE}={value}: give a number of processes, 0 for none")
    return int(value)
