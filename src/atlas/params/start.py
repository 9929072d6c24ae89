"""The folder of weights that ``train.start`` names, and the params that must agree with it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS, TOKENIZER, PRESET = "config.json", "model.safetensors", "tokenizer", "preset.yaml"
MAY_DIFFER = ("context_length", "dropout")


def is_empty(folder: Path) -> bool:
    """True for a folder without files, hidden ones such as .gitkeep aside."""
    return folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir())


def start_conflicts(
    start: str, tokenizer: str, model: Mapping[str, Any], root: Path
) -> Iterator[str]:
    """Yield each reason why ``model`` can't start from the weights in a folder.

    Only the folder's config.json is read. Relative paths begin at ``root``, the project.
    """
    folder = root / start
    if is_empty(folder):
        return
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        yield f"train.start: {start} {problem}: name a folder that `atlas import` wrote"
        return
    if model["kind"] == "bigram":
        yield "train.start: model.kind is bigram, which is counted: name an empty folder"
        return
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        yield f"train.start: {start} has no {missing[0]}: `atlas import SOURCE` writes one"
        return
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        lacks = [key for key in model if key not in config]
    except (OSError, ValueError, TypeError) as error:
        yield f"train.start: {start}/{CONFIG} is not readable as JSON ({error})"
        return
    if lacks:
        yield (
            f"train.start: {start}/{CONFIG} is not of this version of Atlas (no {lacks[0]}): "
            f"convert the model with `atlas import {start}`, and name that folder"
        )
        return
    yield from _shape_conflicts(start, config, model, folder)
    yield from _tokenizer_conflicts(start, folder / TOKENIZER, tokenizer, root / tokenizer)


def _shape_conflicts(
    start: str, config: Mapping[str, Any], model: Mapping[str, Any], folder: Path
) -> Iterator[str]:
    as_json = json.loads(json.dumps(model))
    different = [
        f"model.{key} is {json.dumps(value)} (there {json.dumps(config[key])})"
        for key, value in as_json.items()
        if key not in MAY_DIFFER and value != config[key]
    ]
    if different:
        way = f"set them as in {start}/{CONFIG}"
        if (folder / PRESET).is_file():
            way = f"`atlas preset {folder.name} --apply` sets all of them"
        yield f"train.start: {start} holds another model: {', '.join(different)}: {way}"
    longest, context = config["context_length"], model["context_length"]
    if not isinstance(longest, int) or context > longest:
        yield (
            f"model.context_length is {context}: a context longer than {start} was trained on; set "
            f"it to {longest} or less"
        )


def _tokenizer_conflicts(start: str, own: Path, path: str, chosen: Path) -> Iterator[str]:
    """Compare paths only; training compares the hashes of the tokenizers."""
    if own.is_dir():
        if not chosen.resolve().is_relative_to(own.resolve()):
            yield (
                f"tokenizer.path is {path}: train.start={start} needs its own tokenizer; set "
                f"tokenizer.path={start}/{TOKENIZER}"
            )
    elif is_empty(chosen):
        yield (
            f"tokenizer.path is {path}, an empty folder, so a new tokenizer would be trained: name "
            f"the tokenizer that {start} was trained with"
        )
