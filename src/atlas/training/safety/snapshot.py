"""One checkpoint: the files that hold a moment of training.

::

    model.safetensors     weights
    state.pt              state of the optimizers, and the scale of float16
    progress.json         step, position in the data, all that was logged; what made it

Under FSDP2, ``sharded/`` holds weights and optimizers instead: each process writes its share, and
any number of processes reads them. Either kind goes on as the other. Random numbers need no
keeping: what is random depends on the seed and the step.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from atlas.errors import AtlasError
from atlas.files import files_below
from atlas.model.storage import weights_of, with_tied_head, without_tied_head, write_weights
from atlas.training.safety.progress import Progress
from atlas.training.steps.learner import Learner

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
    model, members = learner.model, learner.optimizers.members
    rest = {"scale": learner.precision.state_dict()}
    if learner.world.shards:
        save(_shares(learner), checkpoint_id=folder / SHARDED)
    else:
        rest["optimizers"] = get_optimizer_state_dict(model, members, options=WHOLE)
    if learner.world.is_first:
        if not learner.world.shards:
            write_weights(weights_of(model), folder / WEIGHTS)
        with (folder / STATE).open("wb") as file:
            torch.save(rest, file)


def read_state(folder: Path, learner: Learner) -> None:
    """Restores weights and optimizers; every process has to do so.

    Nothing is restored before all files are known to be whole.

    Raises:
        Exception: a file is damaged; each reader has kinds of its own for that.
    """
    model, members = learner.model, learner.optimizers.members
    state = torch.load(folder / STATE, weights_only=True, map_location="cpu")
    if (folder / SHARDED).exists():
        shares = _shares(learner)
        load(shares, checkpoint_id=folder / SHARDED)
        set_optimizer_state_dict(model, members, optim_state_dict=shares["optimizers"])
        set_model_state_dict(model, shares["weights"])
    else:
        weights = with_tied_head(model.config, safetensors.torch.load_file(folder / WEIGHTS))
        # Before the weights: it makes an empty state by a step of length 0.
        optimizers = state["optimizers"]
        set_optimizer_state_dict(model, members, optim_state_dict=optimizers, options=WHOLE)
        set_model_state_dict(model, dict(weights), options=WHOLE)
    learner.precision.load_state_dict(state["scale"])


def write_progress(folder: Path, learner: Learner, progress: Progress) -> None:
    """Writes progress.json, which knows the size of every other file."""
    values = {
        "made_with": _made_with(learner),
        "progress": asdict(progress),
        "files": {
            str(file.relative_to(folder)): file.stat().st_size for file in files_below(folder)
        },
    }
    (folder / PROGRESS).write_text(json.dumps(values), encoding="utf-8")


def read_progress(folder: Path, learner: Learner) -> Progress:
    """Reads progress.json; says where the machine is not that of before.

    Raises:
        AtlasError: it is of another model.
        Exception: it is damaged, or another file is cut short or missing.
    """
    values = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    for name, size in values["files"].items():
        found = (folder / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found} bytes of {size}")
    before, now = values["made_with"], _made_with(learner)
    different = sorted(key for key in now["model"] if now["model"][key] != before["model"].get(key))
    if different:
        raise AtlasError(
            f"{folder}: a checkpoint of another model ({', '.join(different)} differ); remove it "
            "to begin anew, or go back to the params of that run"
        )
    changed = [
        key for key in ("device", "torch", "processes", "compiled") if before[key] != now[key]
    ]
    if changed and learner.world.is_first:
        differences = ", ".join(f"{key} {before[key]}, now {now[key]}" for key in changed)
        print(
            f"note: the checkpoint was made otherwise ({differences}): the result will not be that "
            "of an undisturbed run to the last bit",
            file=sys.stderr,
        )
    return Progress(**values["progress"])


def _shares(learner: Learner) -> dict[str, dict[str, Any]]:
    """The share of weights and optimizers that this process holds; all of them, if it is alone."""
    model = learner.model
    return {
        "weights": get_model_state_dict(model),
        "optimizers": get_optimizer_state_dict(model, learner.optimizers.members),
    }


def _made_with(learner: Learner) -> dict[str, Any]:
    return {
        "model": learner.model.config.model_dump(),
        "device": learner.world.device.type,
        "torch": str(torch.__version__),
        "processes": learner.world.size,
        "compiled": learner.compiled,
    }
