"""Checkpoints: all that an interrupted training needs to go on as if nothing had happened.

A folder of checkpoints holds the two newest ones (``step-000120/``) and the best weights so
far (``best.safetensors``). Each appears whole or not at all.
"""

import io
import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors.torch
import torch

from atlas.files import partial_path, put_in_place, remove
from atlas.model.decoder import Decoder
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
    """

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    train_rows: list[Row] = field(default_factory=list)
    val_rows: list[Row] = field(default_factory=list)
    speed_rows: list[Row] = field(default_factory=list)
    unlogged: list[tuple[float, float]] = field(default_factory=list)


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

    def save_best(self, model: Decoder) -> None:
        """Keeps the weights of now as the best."""
        partial = partial_path(self.best)
        save_weights(model, partial)
        put_in_place(partial, self.best)

    def save(self, model: Decoder, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Writes a checkpoint, and removes all but the newest two."""
        final = self.folder / f"step-{progress.step:08d}"
        partial = partial_path(final)
        remove(partial)
        partial.mkdir()
        save_weights(model, partial / WEIGHTS)
        state = {
            "optimizer": optimizer.state_dict(),
            "cpu_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        (partial / STATE).write_bytes(buffer.getbuffer())
        (partial / PROGRESS).write_text(json.dumps(asdict(progress)), encoding="utf-8")
        put_in_place(partial, final)
        for old in self._newest_first()[KEPT:]:
            remove(old)

    def resume(self, model: Decoder, optimizer: torch.optim.Optimizer) -> Progress:
        """Restores the newest checkpoint that is whole, or starts a new run.

        Sets the weights, the state of the optimizer and of every random generator.
        """
        for checkpoint in self._newest_first():
            try:
                return _restore(checkpoint, model, optimizer)
            except Exception as error:  # each reader has its own kinds for a damaged file
                reason = str(error).splitlines()[0]
                print(f"note: {checkpoint} is damaged ({reason}), not used", file=sys.stderr)
        return Progress()

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"), reverse=True)


def _restore(checkpoint: Path, model: Decoder, optimizer: torch.optim.Optimizer) -> Progress:
    # Everything is read before anything is set, so that a damaged file changes nothing.
    weights = safetensors.torch.load_file(checkpoint / WEIGHTS)
    state = torch.load(checkpoint / STATE, weights_only=True, map_location="cpu")
    progress = Progress(**json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))
    load_weights(model, weights)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["cpu_random"])
    if state["cuda_random"]:
        torch.cuda.set_rng_state_all(state["cuda_random"])
    return progress
