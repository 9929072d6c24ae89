"""The results of the last run, for the terminal."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from atlas.errors import AtlasError

METRICS = (
    "fetch",
    "clean",
    "train_tokenizer",
    "tokenize",
    "tokenizer",
    "train",
    "evaluate",
    "export",
)


def print_results(metrics: Path) -> None:
    """Prints the metrics of every stage, and the samples.

    Raises:
        AtlasError: there are none.
    """
    console = Console(highlight=False)
    table = Table("", "metric", "value", box=None, pad_edge=False, header_style="bold")
    for part in METRICS:
        values = _read(metrics / f"{part}.json") | _read(metrics / "timing" / f"{part}.json")
        for number, (name, value) in enumerate(values.items()):
            table.add_row("" if number else part, name, _format(value))
    samples = metrics / "samples.md"
    if not table.row_count or not samples.is_file():
        raise AtlasError(f"{metrics}: no results yet; `dvc repro` makes them")
    console.print(table)
    console.print()
    console.print(samples.read_text(encoding="utf-8"), markup=False)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def _format(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
