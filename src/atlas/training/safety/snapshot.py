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

from atlas.errors import AtlasError, one_line
from atlas.files import crc32, files_below
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
