"""Weights to start from, of ``atlas import`` or an earlier run, and weights that stay."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from atlas.errors import AtlasError, one_line
from atlas.model.language_model import LanguageModel
from atlas.model.weights import weights_of
from atlas.params.start import CONFIG, WEIGHTS, frozen_by, names_of
from atlas.pipeline.files import write_json

ORIGIN, BASE = "origin.json", "base.json"
POSITIONS = "positions.weight"  # learned positions; a shorter context uses the first of them
TYPES = (torch.float32, torch.float16, torch.bfloat16)


def load_start(model: LanguageModel, folder: Path) -> None:
    """Set the weights of a model to those in a folder; 16-bit ones become float32.

    The tensors are read one by one, and each must have its name and shape and be finite. The schema
    of params.yaml has compared config.json already; the tokenizer is that of the tokens.
    """
    path = folder / WEIGHTS
    _check_tokenizer(model, folder)
    origin_of(folder)  # a damaged one must not stop the training at its end
    weights = weights_of(model)
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if lacking := weights.keys() - names:
                raise AtlasError(f"{path}: it lacks {min(lacking)}; import or copy it again")
            if more := names - weights.keys():
                raise AtlasError(f"{path}: params.yaml describes a model without {min(more)}")
            for name, weight in weights.items():
                _copy(weight, file.get_tensor(name), f"{path}: {name}", name == POSITIONS)
    except (OSError, SafetensorError) as error:
        raise AtlasError(
            f"{path}: not readable ({one_line(error)[:120]}); import or copy it again"
        ) from None


def freeze(model: LanguageModel, names: Sequence[str]) -> None:
    """Freeze the weights that ``train.freeze`` names: no gradient, no update, no decay."""
    chosen = frozen_by(names)
    for name, parameter in model.named_parameters():
        if names_of(name) & chosen:
            parameter.requires_grad_(False)


def origin_of(folder: Path) -> dict[str, Any]:
    """Tell where the weights in a folder come from: its origin.json or base.json, or its name."""
    for path in (folder / ORIGIN, folder / BASE):
        if path.exists():
            try:
                found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                return {"name": str(found["name"])} | found
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise AtlasError(
                    f"{path}: not as `atlas import` writes it ({one_line(error)}); import it again"
                ) from None
    return {"name": folder.name}


def write_base(start: Path, folder: Path) -> None:
    """Write base.json, the origin of the weights that training started from, and its licence."""
    write_json(folder / BASE, origin_of(start))
    for licence in filter(Path.is_file, start.glob("LICENSE*")):
        shutil.copyfile(licence, folder / licence.name)


def _check_tokenizer(model: LanguageModel, folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("tokenizer_sha256") != model.config.tokenizer_sha256:
        raise AtlasError(
            f"train.start: {folder} was trained with another tokenizer than that of data/tokens; "
            "set tokenizer.path to its own tokenizer"
        )


@torch.no_grad()
def _copy(weight: torch.Tensor, given: torch.Tensor, place: str, cut: bool) -> None:
    if cut:
        given = given[: len(weight)]
    if given.shape != weight.shape:
        raise AtlasError(
            f"{place} has shape {list(given.shape)}, and params.yaml describes {list(weight.shape)}"
        )
    if given.dtype not in TYPES:
        raise AtlasError(f"{place} is of type {given.dtype}; use float32, float16 or bfloat16")
    if not given.isfinite().all():
        raise AtlasError(f"{place} has values that are not finite; import or train it again")
    weight.copy_(given)
