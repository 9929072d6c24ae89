"""The project that trained a model, for the page: loss curves, roles of heads, example prompts."""

import csv
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from atlas.errors import AtlasError
from atlas.inference.backends.base import LoadedModel
from atlas.inference.text_stream import UNKNOWN

MAX_CURVE_POINTS = 500
MAX_EXAMPLES = 3
MAX_EXAMPLE_LENGTH = 400  # characters
CURVES = {  # file and column
    "train": ("train.csv", "loss"),
    "train_average": ("train.csv", "loss_average"),
    "val": ("val.csv", "loss"),
}
HEAD_KINDS = {  # by column of metrics/tables/heads.csv
    "previous": "previous token",
    "first": "first token",
    "itself": "current token",
    "same": "duplicate token",
    "induction": "induction",
}
OUTPUTS = (("models", "model"), ("models", "export"))  # of the pipeline


def find_training_project(model: Path) -> Path | None:
    """Return the project whose pipeline wrote a model or one of its exports."""
    path = model.absolute()
    for folder in path.parents:
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder if path.relative_to(folder).parts[:2] in OUTPUTS else None
    return None


def load_curves(metrics: Path | None) -> dict[str, list[list[float]]]:
    """Read the [step, loss] points of a training run, at most ``MAX_CURVE_POINTS`` per curve."""
    curves: dict[str, list[list[float]]] = {}
    for name, (file, column) in CURVES.items():
        losses = {
            values["step"]: values[column]
            for row in _rows(metrics, file)
            if (values := _numbers(row, ("step", column)))
        }
        points = [[step, losses[step]] for step in sorted(losses)]
        stride = -(-len(points) // MAX_CURVE_POINTS) or 1
        curves[name] = points[::stride]
    return {name: points for name, points in curves.items() if points}


def load_heads(metrics: Path | None) -> list[dict[str, Any]]:
    """Read the kind of token that each head attends to most, its score, and if it is a role."""
    heads = []
    for row in _rows(metrics, "tables/heads.csv"):
        if (place := _numbers(row, ("layer", "head"))) and (scores := _numbers(row, HEAD_KINDS)):
            kind = max(scores, key=scores.__getitem__)
            is_role = row.get("role") == kind
            head = {"kind": HEAD_KINDS[kind], "score": scores[kind], "is_role": is_role}
            heads.append({name: int(number) for name, number in place.items()} | head)
    return heads


def _rows(metrics: Path | None, file: str) -> Iterator[dict[str, str]]:
    """Read a table with the standard library, as pandas takes seconds to import."""
    if metrics is None:
        return
    with (
        suppress(OSError, csv.Error),
        (metrics / file).open(encoding="utf-8", errors="replace", newline="") as lines,
    ):
        yield from csv.DictReader(lines)


def _numbers(row: dict[str, str], columns: Iterable[str]) -> dict[str, float]:
    """Parse some cells; empty if one is missing or not a finite number."""
    try:
        values = {column: float(row[column]) for column in columns}
    except (KeyError, TypeError, ValueError):
        return {}
    return values if all(map(math.isfinite, values.values())) else {}


def example_prompts(project: Path, model: LoadedModel) -> tuple[str, ...]:
    """Return prompts that the model can read: evaluate.prompts, then beginnings of val documents.

    If documents are questions, these are questions.
    """
    found: list[str] = []
    for text in (*_own_prompts(project), *_val_prompts(project)):
        with suppress(AtlasError):  # the model can't read it
            short = (
                len(text) <= MAX_EXAMPLE_LENGTH and len(model.encode(text)) < model.context_length
            )
            if short and text.strip() and text not in found:
                found.append(text)
        if len(found) == MAX_EXAMPLES:
            break
    return tuple(found)


def _own_prompts(project: Path) -> list[str]:
    from atlas.params.schema import load_params

    with suppress(AtlasError):
        return list(load_params(project / "params.yaml").evaluate.prompts)
    return []


def _val_prompts(project: Path) -> Iterator[str]:
    from atlas.tokens.shards import TokenSplit
    from atlas.tokens.tokenizer import Tokenizer
    from atlas.tokens.windows import document_prompts

    with suppress(AtlasError, OSError):
        tokenizer = Tokenizer.load(project / "models/tokenizer")
        split = TokenSplit(project / "data/tokens", "val")
        if split.index.tokenizer_sha256 == tokenizer.sha256:
            texts = map(tokenizer.decode, document_prompts(split, 2 * MAX_EXAMPLES))
            yield from (text for text in texts if UNKNOWN not in text)
