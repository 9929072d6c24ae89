"""TensorBoard events of a run.

    tensorboard --logdir metrics/tensorboard

They are there to be looked at: where the disk does not take them, training goes on without.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from atlas.errors import one_line
from atlas.files import remove


class Events:
    """The events of one run, from a step on; of a run that begins, those of before are removed."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._try(lambda: self._open(step))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a number."""
        if (writer := self._writer) is not None:
            self._try(lambda: writer.add_scalar(name, value, step))

    def text(self, name: str, text: str, step: int) -> None:
        """Adds a text, shown as it is."""
        if (writer := self._writer) is not None:
            self._try(lambda: writer.add_text(name, f"    {text}", step))

    def close(self) -> None:
        """Writes what is left."""
        if (writer := self._writer) is not None:
            self._try(writer.close)

    def _open(self, step: int) -> None:
        if not step:
            remove(self._folder)
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # what its thread met comes out here, of any kind
            self._writer = None
            print(
                f"note: {self._folder}: no more events for TensorBoard ({one_line(error)}); "
                "training goes on",
                file=sys.stderr,
            )
