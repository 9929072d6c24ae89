"""Load training batches: read ahead by worker processes, in pinned memory for a GPU.

The n-th batch depends on n alone, so the number of workers changes nothing.
"""

import itertools
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from atlas.errors import AtlasError
from atlas.params.settings import settings
from atlas.tokens.windows import Rows, TokenBatch, TrainingWindows

AHEAD = 4  # batches that each worker reads ahead

TensorBatch = TokenBatch[Tensor]


@dataclass
class BatchLoader:
    """Load training batches, from the first one or from a saved position."""

    windows: TrainingWindows
    device: torch.device
    workers: int  # processes that read ahead; with 0, this process reads
    # Rows of each batch to read, if other processes train on the rest.
    share: slice = field(default_factory=lambda: slice(None))
    next: int = 0  # number of the next batch

    def read(self) -> Generator[TensorBatch, None, None]:
        """Yield batches forever, starting at ``next``."""
        loader = DataLoader(
            _Steps(self.windows, self.share),
            batch_size=None,
            sampler=itertools.count(self.next),
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",  # copies overlap with the computation
            prefetch_factor=AHEAD if self.workers else None,
            worker_init_fn=_leave_signals_to_the_trainer,
            generator=torch.Generator(),  # else it would draw from the one that dropout uses
        )
        for rows in self._rows(loader):
            self.next += 1
            moved = rows.to(self.device, non_blocking=True)
            yield TokenBatch.from_rows(moved, self.windows.tokens.index)

    def _rows(self, loader: DataLoader[Rows]) -> Iterator[Tensor]:
        try:
            yield from loader
        except (RuntimeError, OSError, EOFError) as error:
            if not self.workers:
                raise
            raise AtlasError(
                f"ATLAS_READERS={self.workers}: a reader process was killed, probably for lack of "
                f"memory ({error}); use fewer readers, or 0 for none"
            ) from None

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and everything the batches depend on."""
        return {"next": self.next, "windows": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved position, unless it belongs to other data or another order."""
        ours, theirs = self._identity(), state["windows"]
        if ours != theirs:
            different = [key for key in ours if ours[key] != theirs.get(key)]
            raise AtlasError(
                f"the saved position belongs to other batches ({', '.join(different)} differ): "
                "start again, or restore the params and data of that run"
            )
        self.next = state["next"]

    def _identity(self) -> dict[str, Any]:
        """Return everything the n-th batch depends on, apart from n."""
        windows, index = self.windows, self.windows.tokens.index
        return {
            "tokens": windows.tokens.checksum,
            "length": len(windows.tokens),
            "tokenizer": index.tokenizer_sha256,
            "layout": index.windows,
            "document_mask": index.document_mask,
            "separator": index.separator,
            "context_length": windows.context_length,
            "batch_size": windows.batch_size,
            "seed": windows.seed,
            "mix": [str(source) for source in windows.sources.values()] if windows.mix else None,
        }


class _Steps(Dataset[Rows]):
    """The windows of each step as a single array, which is the fastest to send."""

    def __init__(self, windows: TrainingWindows, share: slice) -> None:
        self._windows, self._share = windows, share

    def __getitem__(self, step: int) -> Rows:
        return self._windows.rows(step, self._share)


def _leave_signals_to_the_trainer(_worker: int) -> None:
    """Ignore signals sent to all processes: training may still need batches until it can save."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def reader_count(device: torch.device) -> int:
    """Return ``ATLAS_READERS``, the number of processes that read batches ahead.

    The default is 0 on a CPU, where reading memory maps costs next to nothing, else 2.
    """
    readers = settings().readers
    return (0 if device.type == "cpu" else 2) if readers is None else readers
