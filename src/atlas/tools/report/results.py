"""Read the metrics that the stages wrote; skip missing files and report damaged ones."""

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import pandas as pd

from atlas.errors import AtlasError
from atlas.tools.console import print_table
from atlas.tools.report.wording import exact

logger = logging.getLogger(__name__)
T = TypeVar("T")
Value = int | float | str | bool
# The metrics files in pipeline order; others follow in the order of their names.
ORDER = [
    *("fetch", "clean", "train_tokenizer", "tokenize", "tokenizer", "train", "evaluate", "export")
]
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
CONTROL_PICTURES = str.maketrans(CONTROLS | {0x7F: 0x2421})
NOT_CHARACTERS = re.compile("[\x80-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_NUMBER = 1e100  # anything beyond is damage, not a result
MAX_CELL = 1 << 24  # characters; samples can exceed the csv module's default of 131,072


@dataclass(frozen=True)
class Results:
    """The contents of a metrics folder, by path without the suffix."""

    metrics: Mapping[str, Mapping[str, Value]]  # JSON: ``train``, ``timing/train``, in order
    tables: Mapping[str, pd.DataFrame]  # text cells of CSV: ``train``, ``corpus/words``
    samples: str  # Markdown written by evaluate, each sample an indented block; "" for none
    pictures: Mapping[str, bytes]  # PNG, by name alone
    pages: tuple[str, ...]  # names of HTML pages
    problems: tuple[str, ...]  # a line per file that could not be read, or only in part

    def of(self, file: str) -> Mapping[str, Value]:
        """The metrics in one file; empty if the file is missing."""
        return self.metrics.get(file, {})

    def number(self, file: str, name: str) -> float | None:
        """A numeric metric; None if it is missing or not a number."""
        value = self.of(file).get(name)
        return value if is_number(value) else None

    def table(self, file: str, *columns: str) -> pd.DataFrame | None:
        """A table with at least these columns; None if there is none."""
        found = self.tables.get(file)
        return found if found is not None and set(columns) <= set(found.columns) else None


def read_results(folder: Path) -> Results:
    """Read the metrics folder of a project."""
    problems: list[str] = []

    def read(pattern: str, parse: Callable[[bytes], tuple[T | None, str]]) -> dict[str, T]:
        """Non-empty files, by path without the suffix."""
        found = {}
        for path in sorted(folder.glob(pattern)):
            if path.name.startswith(".") or ("*" in pattern and not path.is_file()):
                continue  # half-written, or a folder
            name = path.relative_to(folder)
            try:
                value, problem = parse(path.read_bytes())
            except OSError as error:
                value, problem = None, error.strerror or "not readable"
            if value is not None:
                found[readable(name.with_suffix("").as_posix())] = value
            if problem:
                problems.append(readable(f"{folder.name}/{name.as_posix()}: {problem}"))
        return found

    metrics = read("*.json", parse_values) | read("timing/*.json", parse_values)
    tables = {
        name: table
        for place in ("", "corpus/", "tables/", "timing/")
        for name, table in read(f"{place}*.csv", parse_table).items()
    }
    if not (metrics or tables):
        raise AtlasError(f"{folder}: no results yet; run `dvc repro`")
    pictures = read("pictures/*.png", parse_picture)
    return Results(
        metrics=dict(sorted(metrics.items(), key=_pipeline_order)),
        tables=tables,
        samples=read("samples.md", lambda content: (_text(content), "")).get("samples", ""),
        pictures={Path(name).name: content for name, content in pictures.items()},
        pages=tuple(sorted(path.name for path in folder.glob("*.html"))),
        problems=tuple(problems),
    )


def print_results(metrics: Path) -> None:
    """Print the metrics of every stage and the samples; damaged files are named on stderr."""
    results = read_results(metrics)
    if not (results.metrics and results.samples):
        raise AtlasError(f"{metrics}: no results yet; run `dvc repro`")
    rows: list[tuple[str, str, str]] = []
    stage = ""
    for file, values in results.metrics.items():
        for name, value in values.items():
            shown = file.removeprefix("timing/")
            rows.append(("" if shown == stage else shown, name, exact(value)))
            stage = shown
    print_table(("", "metric", "value"), rows)
    print(f"\n{results.samples}")
    for problem in results.problems:
        logger.warning("%s", problem)


def parse_values(content: bytes) -> tuple[dict[str, Value] | None, str]:
    """Parse the numbers and texts of a JSON object, without nested values; or name the problem."""
    try:
        found: Any = json.loads(_text(content))
    except (ValueError, RecursionError):
        return None, "incomplete or damaged JSON"
    if not isinstance(found, dict):
        return None, "not a JSON object"
    values = {
        readable(key): readable(value) if isinstance(value, str) else value
        for key, value in found.items()
        if isinstance(value, str) or is_number(value)
    }
    return values or None, ""


def parse_table(content: bytes) -> tuple[pd.DataFrame | None, str]:
    """Parse a table of text cells; rows that are cut off are skipped and reported as a problem."""
    limit = csv.field_size_limit(MAX_CELL)
    try:
        header, *lines = filter(None, csv.reader(io.StringIO(_text(content), newline="")))
    except csv.Error as error:
        return None, f"not a table: {error}"
    except ValueError:
        return None, "no header"
    finally:
        csv.field_size_limit(limit)
    if len(set(header)) < len(header):
        return None, "two columns have the same name"
    rows = [line for line in lines if len(line) == len(header)]
    cut = len(lines) - len(rows)
    problem = f"{cut:,} row{'s' * (cut > 1)} left out: wrong number of cells" if cut else ""
    return pd.DataFrame(rows, columns=header) if rows else None, problem


def parse_picture(content: bytes) -> tuple[bytes | None, str]:
    """A PNG file, or the problem."""
    whole = content.startswith(PNG_SIGNATURE) and b"IEND" in content[24:][-12:]
    return (content, "") if whole else (None, "incomplete or damaged PNG")


def readable(text: str) -> str:
    """Make a text safe to print: ␀ for control characters, U+FFFD for non-characters."""
    return NOT_CHARACTERS.sub("\ufffd", text.replace("\r\n", "\n").translate(CONTROL_PICTURES))


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether a value is a finite number of sensible size."""
    return isinstance(value, int | float) and -MAX_NUMBER < value < MAX_NUMBER


def numbers(column: "pd.Series[str]") -> "pd.Series[float]":
    """Parse the cells of a column; NaN where a cell is not a number of sensible size."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    return values.where(values.abs() < MAX_NUMBER)


def curve_values(table: pd.DataFrame | None, column: str) -> "pd.Series[float]":
    """A column of a table by step, in the order of steps; empty if it holds no numbers."""
    if table is None or not {"step", column} <= set(table.columns):
        return pd.Series(dtype=float)
    points = pd.DataFrame({"step": numbers(table["step"]), "value": numbers(table[column])})
    points = points.dropna().drop_duplicates("step", keep="last").sort_values("step")
    return points.set_index("step")["value"]


def _pipeline_order(item: tuple[str, Any]) -> tuple[int, bool, str]:
    """Sort key of a metrics file: by stage, its timing last."""
    folder, _, stage = item[0].rpartition("/")
    return ORDER.index(stage) if stage in ORDER else len(ORDER), folder != "", stage


def _text(content: bytes) -> str:
    return readable(content.decode("utf-8", errors="replace"))
