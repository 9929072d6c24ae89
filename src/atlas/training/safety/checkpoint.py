"""The checkpoints of a run: the two newest, and the best weights so far.

::

    step-00000120/     all that an interrupted training needs to go on as if nothing had happened
    step-00000240/
    best.safetensors

Each appears whole or not at all.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from atlas.errors import AtlasError, one_line
from atlas.files import partial_path, put_in_place, remove
from atlas.model.storage import write_weights
from atlas.training.safety.progress import Progress
from atlas.training.safety.snapshot import (
    damage_of,
    read_progress,
    read_state,
    write_progress,
    write_state,
)
from atlas.training.steps.learner import Learner

KEPT = 2
FULL_DISK = (AtlasError, OSError, RuntimeError, CheckpointException)  # how writers say it


class Checkpoints:
    """The checkpoints of one training run.

    Attributes:
        folder: where they are; every process of the run must see it.
        best: the best weights so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"
        self._unwritten: dict[str, Tensor] = {}  # best weights that the disk did not take
        folder.mkdir(parents=True, exist_ok=True)

    def keep_best(self, weights: dict[str, Tensor]) -> None:
        """Keeps weights as the best: in memory, where the disk does not take them."""
        self._unwritten = {name: weight.detach().clone() for name, weight in weights.items()}
        if error := _failure_of(self.settle):
            _note(f"{self.best}: not written ({error}); kept in memory, training goes on")

    def settle(self) -> None:
        """Writes the best weights, if the disk has not taken them yet.

        Raises:
            AtlasError, OSError: it does not do so now either.
        """
        if self._unwritten:
            partial = partial_path(self.best)
            write_weights(self._unwritten, partial)
            put_in_place(partial, self.best)
            self._unwritten = {}

    def save(self, learner: Learner, progress: Progress) -> bool:
        """Writes a checkpoint, and removes all but the newest two; every process has to do so.

        Returns:
            Whether the disk took it. If not, that is said, and those of before stay.
        """
        final = self.folder / f"step-{progress.step:08d}"
        partial = partial_path(final)

        def begin() -> None:
            if learner.world.is_first:
                remove(partial)
                self.settle()  # a checkpoint must not speak of best weights that are not there
                partial.mkdir()

        def finish() -> None:
            if learner.world.is_first:
                write_progress(partial, learner, progress)
                put_in_place(partial, final)

        for part in (begin, lambda: write_state(partial, learner), finish):
            error = _failure_of(part)
            if learner.world.any(bool(error)):
                if error:
                    _note(
                        f"{final}: checkpoint not written ({error}); training goes on, and the "
                        "one before stays: free some space"
                    )
                if learner.world.is_first:
                    remove(partial)
                return False
        if learner.world.is_first:
            for old in self.newest_first()[KEPT:]:
                remove(old)
        return True

    def resume(self, learner: Learner) -> Progress:
        """Restores the newest checkpoint that is whole, or starts a new run.

        A damaged one is removed, so that it does not pass for the newest. Every process has to
        ask.

        Raises:
            AtlasError: it is of another model, or another version of PyTorch wrote it.
        """
        world = learner.world
        for checkpoint in self.newest_first():
            damage = damage_of(checkpoint) if world.is_first else ""
            if world.any(bool(damage)):
                if world.is_first:
                    _note(f"{checkpoint} is damaged ({damage}): not used, removed")
                    remove(checkpoint)
                continue
            progress = read_progress(checkpoint, learner)
            try:
                read_state(checkpoint, learner)
            except (Exception, CheckpointException) as error:  # each reader has kinds of its own
                raise AtlasError(
                    f"{checkpoint}: not readable though it is whole ({one_line(error)[:80]}); "
                    "remove it to go on from the one before"
                ) from error
            return progress
        return Progress()

    def newest_first(self) -> list[Path]:
        """The folders of the checkpoints."""
        return sorted(self.folder.glob("step-*"), reverse=True)


def _failure_of(action: Callable[[], None]) -> str:
    """What a full disk says to an action; empty if it took it."""
    try:
        action()
    except FULL_DISK as error:
        return one_line(error)
    return ""


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)
