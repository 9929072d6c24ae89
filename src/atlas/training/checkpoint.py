"""Checkpoints: all that an interrupted training needs to go on as if nothing had happened.

A folder of checkpoints holds the two newest ones (``step-00000120/``) and the best weights so
far (``best.safetensors``). Each appears whole or not at all.
"""

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from atlas.errors import AtlasError, one_line
from atlas.files import partial_path, put_in_place, remove
from atlas.model.language_model import LanguageModel
from atlas.model.storage import load_weights, save_weights

KEPT = 2
WEIGHTS, STATE, PROGRESS = "model.safetensors", "state.pt", "progress.json"
Row = dict[str, int | float]


@dataclass
class Progress:
    """How far training is, and what it has logged.

    Attributes:
        step: steps done.
        best_step: the step after which the val loss was lowest.
        best_loss: that val loss, nats a token.
        train_rows: rows of metrics/train.csv.
        val_rows: rows of metrics/val.csv.
        speed_rows: rows of metrics/timing/train.csv.
        unlogged: loss and norm of the gradient of each step since the last row.
        tokens: that the steps have read.
        batches: where their reading is.
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    train_rows: list[Row] = field(default_factory=list)
    val_rows: list[Row] = field(default_factory=list)
    speed_rows: list[Row] = field(default_factory=list)
    unlogged: list[tuple[float, float]] = field(default_factory=list)
    tokens: int = 0
    batches: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one training run.

    Attributes:
        folder: where they are.
        best: the best weights so far.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.best = folder / "best.safetensors"
        folder.mkdir(parents=True, exist_ok=True)

    def save_best(self, model: LanguageModel) -> None:
        """Keeps the weights of now as the best."""
        partial = partial_path(self.best)
        save_weights(model, partial)
        put_in_place(partial, self.best)

    def save(
        self, model: LanguageModel, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        """Writes a checkpoint, and removes all but the newest two.

        Raises:
            AtlasError: the disk does not take it; those of before stay.
        """
        final = self.folder / f"step-{progress.step:08d}"
        partial = partial_path(final)
        remove(partial)
        try:
            partial.mkdir()
            save_weights(model, partial / WEIGHTS)
            with (partial / STATE).open("wb") as file:
                torch.save(_state(optimizer, model.device), file)
            (partial / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
            put_in_place(partial, final)
        except (AtlasError, OSError, RuntimeError) as error:  # torch's writer has RuntimeErrors
            remove(partial)
            raise AtlasError(
                f"{final}: checkpoint not written ({one_line(error)}); free some space and run "
                "again: training goes on from the checkpoint before"
            ) from error
        for old in self._newest_first()[KEPT:]:
            remove(old)

    def resume(self, model: LanguageModel, optimizer: torch.optim.Optimizer) -> Progress:
        """Restores the newest checkpoint that is whole, or starts a new run.

        Sets the weights, the state of the optimizer and of the random generators. A damaged
        checkpoint is removed, so that it does not pass for the newest.
        """
        for checkpoint in self._newest_first():
            try:
                weights, state, progress = _read(checkpoint)
            except Exception as error:  # each reader has its own kinds for a damaged file
                print(
                    f"note: {checkpoint} is damaged ({one_line(error)[:80]}): not used, removed",
                    file=sys.stderr,
                )
                remove(checkpoint)
                continue
            load_weights(model, weights)
            optimizer.load_state_dict(state["optimizer"])
            _set_random(state, model.device)
            return progress
        return Progress()

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def _read(checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any], Progress]:
    weights = safetensors.torch.load_file(checkpoint / WEIGHTS)
    state = torch.load(checkpoint / STATE, weights_only=True, map_location="cpu")
    progress = Progress(**json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))
    return weights, state, progress


def _state(optimizer: torch.optim.Optimizer, device: torch.device) -> dict[str, Any]:
    state = {
        "optimizer": optimizer.state_dict(),
        "device": device.type,
        "torch": str(torch.__version__),
        "cpu_random": torch.get_rng_state(),
    }
    if device.type != "cpu":
        state["device_random"] = torch.get_device_module(device).get_rng_state()
    return state


def _set_random(state: dict[str, Any], device: torch.device) -> None:
    """Restores the random generators; says so where the machine is not that of before."""
    torch.set_rng_state(state["cpu_random"])
    before, now = (state["device"], state["torch"]), (device.type, str(torch.__version__))
    if before != now:
        print(
            f"note: the checkpoint is of {before[0]} and torch {before[1]}, this is {now[0]} and "
            f"torch {now[1]}: the result will not be that of an undisturbed run to the last bit",
            file=sys.stderr,
        )
    if device.type != "cpu" and state["device"] == device.type:
        torch.get_device_module(device).set_rng_state(state["device_random"])
