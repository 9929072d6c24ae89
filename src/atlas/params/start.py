"""Weights to start from, and weights that stay: rules of ``train.start`` and ``train.freeze``."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
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
    except (OSError, ValueError, TypeError, RecursionError) as error:
        yield f"train.start: {start}/{CONFIG} is not readable as JSON ({error})"
        return
    if lacks:
        way = "import or train the model again"
        if "kind" not in config:  # a model from elsewhere
            way = f"convert the model with `atlas import {start}`, and name that folder"
        yield (
            f"train.start: {start}/{CONFIG} is not of this version of Atlas (no {lacks[0]}): {way}"
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


def frozen_by(names: Sequence[str]) -> set[str]:
    """Expand ranges of blocks in ``train.freeze``: blocks.0-2 is blocks.0, blocks.1, blocks.2."""
    found: set[str] = set()
    for name in names:
        stack, _, numbers = name.partition(".")
        first, dash, last = numbers.partition("-")
        blocks = range(int(first), int(last) + 1) if dash else ()
        found |= {f"{stack}.{number}" for number in blocks} or {name}
    return found


def names_of(parameter: str) -> set[str]:
    """Return the names in ``train.freeze`` that freeze a weight: its block, and what it is part of.

    blocks.3.attention.query_norm.weight: blocks.3, attention and norm.
    """
    names = set()
    first, second, *rest = parameter.split(".")
    for part in (first, *rest):
        if part.endswith("norm"):
            names.add("norm")
        elif part.endswith(("attention", "feed_forward")):
            names.add(part.removeprefix("cross_"))
    if second.isdecimal():
        names.add(f"{first}.{second}")
    return names or {first}


def freeze_conflicts(freeze: Sequence[str], model: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with ``train.freeze``: a name that freezes nothing, or all of them."""
    groups = _weight_groups(model)
    known, chosen = set().union(*groups), frozen_by(freeze)
    if "head" in chosen - known and model["tied_head"]:
        yield "train.freeze names head, which is the embedding (model.tied_head): name embedding"
    elif unknown := sorted(chosen - known):
        plain = [name for name in dict.fromkeys(itertools.chain(*groups)) if "." not in name]
        stacks = {name.partition(".")[0]: None for name in known if "." in name}
        blocks = [f"{stack}.0 to {stack}.{model['n_layer'] - 1}" for stack in sorted(stacks)]
        yield f"train.freeze names {unknown[0]}: this model has {', '.join(plain + blocks)}"
    elif chosen and all(chosen & set(group) for group in groups):
        yield "train.freeze covers all weights: leave some to train"


def _weight_groups(model: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """List the names that freeze each group of weights of a model."""
    match model["kind"]:
        case "bigram":
            return [()]
        case "two_layer":
            return [("embedding",), ("hidden",), ("output",)]
    groups: list[tuple[str, ...]] = [("embedding",)]
    groups += [("positions",)] * (model["positions"] == "learned")
    groups += [("head",)] * (not model["tied_head"])
    groups += [("norm",)] * (model["norm_position"] != "post")
    stacks = ("encoder", "decoder") if model["kind"] == "encoder_decoder" else ("blocks",)
    return groups + [
        (f"{stack}.{number}", part)
        for stack in stacks
        for number in range(model["n_layer"])
        for part in ("attention", "feed_forward", "norm")
    ]
