"""Ctrl+C and SIGTERM as a request that the training loop grants between two steps.

One checkpoint: the files that hold a moment of training.

::

    model.safetensors     weights
    state.pt              state of the optimizers, and the scale of float16
    progress.json         step, position in the data, all that was logged; what made it

Under FSDP2, ``sharded/`` holds weights and optimizers instead: each process writes its share, and
any number of processes reads them. Either kind goes on as the other. Random numbers need no
keeping: what is random depends on the seed and the step.

The checkpoints of a run: the two newest, and the best weights so far.

::

    step-00000120/     all that an interrupted training needs to go on as if nothing had happened
    step-00000240/
    best.safetensors

Each appears whole or not at all.
"""

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from atlas.errors import AtlasError, Stopped, one_line
from atlas.model.storage import weights_of, with_tied_head, without_tied_head, write_weights
from atlas.pipeline.files import crc32, files_below, partial_path, put_in_place, remove
from atlas.training.metrics import Progress
from atlas.training.train_step import Learner

WEIGHTS, STATE, PROGRESS, SHARDED = "model.safetensors", "state.pt", "progress.json", "sharded"
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def whole_weights(learner: Learner) -> dict[str, Tensor]:
    """The weights by name, gathered from all processes; every process has to ask."""
    if not learner.world.shards:
        return weights_of(learner.model)
    weights: dict[str, Any] = get_model_state_dict(learner.model, options=WHOLE)
    return without_tied_head(learner.model.config, weights)


def write_state(folder: Path, learner: Learner) -> None:
    """Writes weights and optimizers; every process has to do so.

    Raises:
        AtlasError: the disk does not take it; other writers say it as an OSError, a RuntimeError
            or a CheckpointException.
    """
    world = learner.world
    begun = learner.optimizers.have_begun()
    rest: dict[str, Any] = {"scale": learner.precision.state_dict(), "begun": begun}
    if world.shards:
        save(_shares(learner, begun), checkpoint_id=folder / SHARDED)
    elif begun:
        model, members = learner.model, learner.optimizers.members
        rest["optimizers"] = get_optimizer_state_dict(model, members, options=WHOLE)
    if world.is_first:
        if not world.shards:
            write_weights(weights_of(learner.model), folder / WEIGHTS)
        with (folder / STATE).open("wb") as file:
            torch.save(rest, file)


def read_state(folder: Path, learner: Learner) -> None:
    """Restores weights and optimizers from files that are whole; every process has to do so.

    Raises:
        Exception: they cannot be read, and the learner may be restored in part.
    """
    model, members = learner.model, learner.optimizers.members
    state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
    # Optimizers go first: an empty one gets a state by a step of length 0.
    if (folder / SHARDED).exists():
        shares = _shares(learner, state["begun"])
        load(shares, checkpoint_id=folder / SHARDED)
        if state["begun"]:
            set_optimizer_state_dict(model, members, optim_state_dict=shares["optimizers"])
        set_model_state_dict(model, shares["weights"])
    else:
        weights = with_tied_head(model.config, safetensors.torch.load_file(folder / WEIGHTS))
        if state["begun"]:
            optimizers = state["optimizers"]
            set_optimizer_state_dict(model, members, optim_state_dict=optimizers, options=WHOLE)
        set_model_state_dict(model, dict(weights), options=WHOLE)
    learner.precision.load_state_dict(state["scale"])


def write_progress(folder: Path, learner: Learner, progress: Progress) -> None:
    """Writes progress.json, which knows the checksum of every other file."""
    values = {
        "made_with": _made_with(learner),
        "progress": asdict(progress),
        "files": {str(file.relative_to(folder)): crc32(file) for file in files_below(folder)},
    }
    (folder / PROGRESS).write_text(json.dumps(values), encoding="utf-8")


def damage_of(folder: Path) -> str:
    """Which file of a checkpoint is missing or not what was written; empty if all are whole."""
    try:
        files = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))["files"]
        wrong = [name for name, checksum in files.items() if crc32(folder / name) != checksum]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return one_line(error)[:80] or type(error).__name__
    return f"{wrong[0]} is not what was written" if wrong else ""


def read_progress(folder: Path, learner: Learner) -> Progress:
    """Reads progress.json; says where the machine is not that of before.

    Raises:
        AtlasError: it is of another model.
    """
    values = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    before, now = values["made_with"], _made_with(learner)
    different = sorted(key for key in now["model"] if now["model"][key] != before["model"].get(key))
    if different:
        raise AtlasError(
            f"{folder}: a checkpoint of another model ({', '.join(different)} differ); remove it "
            "to begin anew, or go back to the params of that run"
        )
    changed = [key for key in now if key != "model" and before.get(key) != now[key]]
    if changed and learner.world.is_first:
        differences = ", ".join(f"{key} {before.get(key)}, now {now[key]}" for key in changed)
        print(
            f"note: the checkpoint was made otherwise ({differences}): the result will not be that "
            "of an undisturbed run to the last bit",
            file=sys.stderr,
        )
    return Progress(**values["progress"])


def _shares(learner: Learner, begun: bool) -> dict[str, dict[str, Any]]:
    """What this process holds of the weights, and of optimizers that have made a step."""
    shares: dict[str, dict[str, Any]] = {"weights": get_model_state_dict(learner.model)}
    if begun:
        members = learner.optimizers.members
        shares["optimizers"] = get_optimizer_state_dict(learner.model, members)
    return shares


def _made_with(learner: Learner) -> dict[str, Any]:
    return {
        "model": learner.model.config.model_dump(),
        "device": learner.world.device.type,
        "torch": str(torch.__version__),
        "processes": learner.world.size,
        "strategy": learner.world.strategy if learner.world.size > 1 else "alone",
        "threads": torch.get_num_threads(),
        "compiled": learner.compiled,
    }


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


class StopRequest:
    """While active, SIGINT and SIGTERM set ``requested`` instead of ending the process.

    Left by ``Stopped`` it stays: the process is ending, and who asks again, as a launcher does,
    would only end it without a word.
    """

    requested = False

    def __enter__(self) -> "StopRequest":
        self._before = {
            number: signal.signal(number, self._request)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if kind is Stopped:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
