"""Checkpoints: save training between two steps and continue it exactly.

A run keeps its two newest checkpoints and the best weights so far::

    step-00000120/
        model.safetensors     weights that are trained
        optimizer.pt          optimizer state, and the loss scale of float16
        trainer_state.json    step, position in the data, all logged rows, environment, checksums
    step-00000240/
    best.safetensors

Under FSDP2 a folder ``sharded/`` holds weights and optimizers: each process writes its shard, and
any number of processes can read them. Runs with and without FSDP2 can resume from either kind. No
random state is saved, because every random choice depends only on the seed and the step. Each
checkpoint appears whole or not at all.
"""

import json
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
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
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel
from atlas.model.weights import (
    LAST_WEIGHTS,
    WEIGHTS,
    weights_of,
    with_tied_head,
    without_tied_head,
    write_weights,
)
from atlas.params.schema import TrainParams
from atlas.params.start import is_empty
from atlas.pipeline.files import crc32, files_below, partial_path, put_in_place, remove
from atlas.training.distributed import DistributedContext
from atlas.training.lora import merge, write_adapter
from atlas.training.metrics import TrainState
from atlas.training.start import write_base
from atlas.training.train_step import Precision, TrainStep

OPTIMIZER, SHARDED = "optimizer.pt", "sharded"
TRAIN_STATE = "trainer_state.json"
KEPT = 2
FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
# Frozen weights are those the run started from, and so not in a checkpoint.
TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
FULL_TRAINED = replace(FULL, ignore_frozen_params=True, strict=False)
DISK_ERRORS = (AtlasError, OSError, RuntimeError, CheckpointException)  # each writer has its own

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one training run, in a folder that all its processes see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"
        self._pending: dict[str, Tensor] = {}  # best weights that are not on disk yet
        folder.mkdir(parents=True, exist_ok=True)

    def keep_best(self, weights: dict[str, Tensor]) -> None:
        """Save the best weights; keep them in memory if the disk is full."""
        self._pending = {name: weight.detach().clone() for name, weight in weights.items()}
        if error := _disk_error(self.flush):
            logger.warning(
                "%s: not written (%s); kept in memory, training continues", self.best, error
            )

    def flush(self) -> None:
        """Write the best weights if they are not on disk yet."""
        if self._pending:
            partial = partial_path(self.best)
            write_weights(self._pending, partial)
            put_in_place(partial, self.best)
            self._pending = {}

    def save(self, train_step: TrainStep, state: TrainState) -> bool:
        """Write a checkpoint and keep only the newest two; every process must call this.

        If the disk is full, log a warning, keep the older checkpoints and return False.
        """
        context = train_step.context
        final = self.folder / f"step-{state.step:08d}"
        partial = partial_path(final)

        def begin() -> None:
            if context.is_main:
                remove(partial)
                self.flush()  # a checkpoint must not refer to best weights that are not on disk
                partial.mkdir()

        def finish() -> None:
            if context.is_main:
                _write_state(partial, train_step, state)
                put_in_place(partial, final)

        for action in (begin, lambda: _write_tensors(partial, train_step), finish):
            error = _disk_error(action)
            if context.any(bool(error)):
                if error:
                    logger.warning(
                        f"{final}: checkpoint not written ({error}); training continues, and the "
                        "previous one is kept: free some space"
                    )
                if context.is_main:
                    remove(partial)
                return False
        if context.is_main:
            for old in self.newest_first()[KEPT:]:
                remove(old)
        return True

    def resume(self, train_step: TrainStep) -> TrainState:
        """Restore the newest intact checkpoint, or start a new run; every process must call this.

        Damaged checkpoints are removed, so that a later save does not mistake them for new ones.
        """
        context = train_step.context
        for checkpoint in self.newest_first():
            damage = find_damage(checkpoint) if context.is_main else ""
            if context.any(bool(damage)):
                if context.is_main:
                    logger.warning("%s is damaged (%s): removed", checkpoint, damage)
                    remove(checkpoint)
                continue
            state = _read_state(checkpoint, train_step)
            try:
                _read_tensors(checkpoint, train_step)
            except (Exception, CheckpointException) as error:  # each reader has its own errors
                raise AtlasError(
                    f"{checkpoint}: intact but not readable ({one_line(error)[:80]}); "
                    "remove it to continue from the previous one"
                ) from error
            return state
        return TrainState()

    def write_model(
        self, folder: Path, config: ModelConfig, last: dict[str, Tensor], train: TrainParams
    ) -> None:
        """Write the config, the best weights and the last weights of a model to a folder.

        A change that LoRA has trained is merged into its matrices, and the best one also written as
        an adapter of the weights that training started from. base.json names those.
        """
        config.write(folder)
        if not is_empty(start := Path(train.start)):
            write_base(start, folder)
        best = last | (self._pending or safetensors.torch.load_file(self.best))
        if train.lora.rank is not None:
            write_adapter(folder, best, train.lora, start)
        write_weights(merge(best, train.lora), folder / WEIGHTS)
        write_weights(merge(last, train.lora), folder / LAST_WEIGHTS)

    def make_room(self) -> None:
        """Remove all checkpoints but the newest."""
        for old in self.newest_first()[1:]:
            remove(old)

    def last_step(self) -> int:
        """The step of the newest checkpoint, 0 without one."""
        names = [folder.name for folder in self.newest_first()]
        return int(names[0].removeprefix("step-")) if names else 0

    def newest_first(self) -> list[Path]:
        """Folders of the checkpoints."""
        return sorted(self.folder.glob("step-*"), reverse=True)


def full_weights(model: LanguageModel, context: DistributedContext) -> dict[str, Tensor]:
    """Gather the weights by name from all processes; every process must call this."""
    if not context.is_sharded:
        return weights_of(model)
    weights: dict[str, Any] = get_model_state_dict(model, options=FULL)
    return without_tied_head(model.config, weights)


def trained_weights(model: LanguageModel, context: DistributedContext) -> dict[str, Tensor]:
    """Gather the weights that are not frozen from all processes; every process must call this."""
    if context.is_sharded:
        weights: dict[str, Any] = get_model_state_dict(model, options=FULL_TRAINED)
        return without_tied_head(model.config, weights)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: weight for name, weight in weights_of(model).items() if name in trained}


def find_damage(checkpoint: Path) -> str:
    """Describe the first file that is missing or damaged; empty if all are intact."""
    try:
        files = json.loads((checkpoint / TRAIN_STATE).read_text(encoding="utf-8"))["files"]
        wrong = [name for name, checksum in files.items() if crc32(checkpoint / name) != checksum]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return one_line(error)[:80] or type(error).__name__
    return f"the checksum of {wrong[0]} is wrong" if wrong else ""


def _write_tensors(folder: Path, train_step: TrainStep) -> None:
    """Write weights and optimizers; every process must call this."""
    context, optimizers = train_step.context, train_step.optimizers
    started = optimizers.has_state()
    rest: dict[str, Any] = {"scale": train_step.precision.scaler.state_dict(), "started": started}
    if context.is_sharded:
        save(_shards(train_step, started), checkpoint_id=folder / SHARDED)
    elif started:
        rest["optimizers"] = get_optimizer_state_dict(
            train_step.model, optimizers.members, options=FULL
        )
    if context.is_main:
        if not context.is_sharded:
            write_weights(trained_weights(train_step.model, context), folder / WEIGHTS)
        with (folder / OPTIMIZER).open("wb") as file:
            torch.save(rest, file)


def _read_tensors(folder: Path, train_step: TrainStep) -> None:
    """Restore weights and optimizers; every process must call this."""
    model, members = train_step.model, train_step.optimizers.members
    rest = torch.load(folder / OPTIMIZER, weights_only=True, map_location="cpu")
    # Optimizers before weights: PyTorch creates the state of a new optimizer by a step of size 0.
    if (folder / SHARDED).exists():
        shards = _shards(train_step, rest["started"])
        load(shards, checkpoint_id=folder / SHARDED)
        if rest["started"]:
            set_optimizer_state_dict(model, members, optim_state_dict=shards["optimizers"])
        set_model_state_dict(model, shards["weights"], options=TRAINED)
    else:
        weights = with_tied_head(model.config, safetensors.torch.load_file(folder / WEIGHTS))
        options = FULL_TRAINED if len(weights) < len(model.state_dict()) else FULL
        if rest["started"]:
            optimizers = rest["optimizers"]
            set_optimizer_state_dict(model, members, optim_state_dict=optimizers, options=FULL)
        set_model_state_dict(model, dict(weights), options=options)
    train_step.precision.scaler.load_state_dict(rest["scale"])


def _write_state(folder: Path, train_step: TrainStep, state: TrainState) -> None:
    """Write trainer_state.json with the checksums of all other files."""
    values = {
        "environment": _environment(train_step),
        "state": asdict(state),
        "files": {str(file.relative_to(folder)): crc32(file) for file in files_below(folder)},
    }
    (folder / TRAIN_STATE).write_text(json.dumps(values), encoding="utf-8")


def _read_state(folder: Path, train_step: TrainStep) -> TrainState:
    """Read trainer_state.json; reject that of another model, warn about another environment."""
    values = json.loads((folder / TRAIN_STATE).read_text(encoding="utf-8"))
    before, now = values["environment"], _environment(train_step)
    different = sorted(key for key in now["model"] if now["model"][key] != before["model"].get(key))
    if different:
        raise AtlasError(
            f"{folder}: a checkpoint of another model ({', '.join(different)} differ); remove it "
            "to start over, or restore the params of that run"
        )
    if train_step.params.precision == "auto" and before["precision"] != now["precision"]:
        now["precision"] = before["precision"]  # a change would not be the same run
        train_step.precision = Precision(before["precision"], train_step.context.device)
        if train_step.context.is_main:
            logger.info("train.precision=auto: %s, as before the stop", before["precision"])
    changed = [key for key in now if key != "model" and before.get(key) != now[key]]
    if changed and train_step.context.is_main:
        differences = ", ".join(f"{key} {before.get(key)}, now {now[key]}" for key in changed)
        logger.warning(
            f"the checkpoint was written in another environment ({differences}): the result may "
            "differ from an uninterrupted run in the last bits"
        )
    return TrainState(**values["state"])


def _shards(train_step: TrainStep, started: bool) -> dict[str, dict[str, Any]]:
    """This process's shards of the weights, and of the optimizers if they have any state."""
    weights: dict[str, Any] = get_model_state_dict(train_step.model, options=TRAINED)
    shards: dict[str, dict[str, Any]] = {"weights": weights}
    if started:
        members = train_step.optimizers.members
        shards["optimizers"] = get_optimizer_state_dict(train_step.model, members)
    return shards


def _environment(train_step: TrainStep) -> dict[str, Any]:
    context = train_step.context
    return {
        "model": train_step.model.config.model_dump(mode="json"),
        "device": context.device.type,
        "torch": str(torch.__version__),
        "processes": context.size,
        "strategy": context.strategy if context.size > 1 else "single",
        "threads": torch.get_num_threads(),
        "compiled": train_step.compiled,
        "precision": train_step.precision.name,
    }


def _disk_error(action: Callable[[], None]) -> str:
    """Run an action; return the error of a full disk, or an empty string."""
    try:
        action()
    except DISK_ERRORS as error:
        return one_line(error)
    return ""


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list instead of ending the process.

    After ``Stopped`` the handlers stay: the process is ending, and a second signal, such as a
    launcher sends, would only interrupt that.
    """
    requests: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: requests.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield requests
    except Stopped:
        before = {}
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
