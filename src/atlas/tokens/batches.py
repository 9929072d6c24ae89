"""Batches on their way to the model: read ahead by workers, in pinned memory for a GPU.

How many read never changes what is read: the n-th batch depends on n alone.
"""

import itertools
import os
import signal
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from atlas.errors import AtlasError
from atlas.tokens.windows import Batch, Rows, TrainingWindows

VARIABLE = "ATLAS_READERS"
AHEAD = 4  # batches that each worker has ready


TensorBatch = Batch[Tensor]


class Batches:
    """The batches of training, from the first or from where another run was.

    Attributes:
        windows: that they are made of.
        device: where they go.
        workers: processes that read ahead; 0 reads in this one.
        share: the windows of each batch that are read; the others are for other processes.
        next: number of the next batch.
    """

    def __init__(
        self,
        windows: TrainingWindows,
        device: torch.device,
        workers: int,
        share: slice = slice(None),
    ) -> None:
        self.windows = windows
        self.device = device
        self.workers = workers
        self.share = share
        self.next = 0

    def read(self) -> Generator[TensorBatch, None, None]:
        """Batches without end, from ``next`` on."""
        loader = DataLoader(
            _Steps(self.windows, self.share),
            batch_size=None,
            sampler=itertools.count(self.next),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",  # so that copies run beside the computation
            prefetch_factor=AHEAD if self.workers else None,
            worker_init_fn=_leave_signals_to_the_trainer,
            generator=torch.Generator(),  # else it would draw from that of dropout
        )
        for rows in self._rows(loader):
            self.next += 1
            yield Batch.of(rows.to(self.device, non_blocking=True), self.windows.tokens.index)

    def _rows(self, loader: DataLoader[Rows]) -> Iterator[Tensor]:
        try:
            yield from loader
        except (RuntimeError, OSError, EOFError) as error:
            if not self.workers:
                raise
            raise AtlasError(
                f"{VARIABLE}={self.workers}: a reader was ended, most likely for want of memory "
                f"({error}); use fewer, 0 reads without one"
            ) from None

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
            "tokens": windows.tokens.checksum,
            "length": len(windows.tokens),
            "tokenizer": index.tokenizer_sha256,
            "layout": index.windows,
            "separator": index.separator,
            "context_length": windows.context_length,
            "batch_size": windows.batch_size,
            "seed": windows.seed,
        }


class _Steps(Dataset[Rows]):
    """The windows of each step, by its number: one array, which travels fastest."""

    def __init__(self, windows: TrainingWindows, share: slice) -> None:
        self._windows, self._share = windows, share

    def __getitem__(self, step: int) -> Rows:
        return self._windows.rows(step, self._share)


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """A signal to all processes of a run must not end the readers before the checkpoint."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


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
