"""Read the metrics that the stages wrote, and the origin of the run from git and dvc.lock.

Missing files are skipped and damaged ones reported. Metrics and params are files in git, so reading
them with git gives what `dvc params diff` and `dvc metrics diff` give, in a hundredth of the time.
"""

import contextlib
import csv
import functools
import io
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import pandas as pd
import yaml

from atlas.errors import AtlasError
from atlas.params.overrides import leaves
from atlas.pipeline.pages import readable

T = TypeVar("T")
Value = int | float | str | bool
Params = Mapping[str, Any]  # by dotted key
Changes = list[tuple[str, Any, Any]]  # key, value before, value now
LOAD_YAML = functools.partial(yaml.load, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
# The metrics files in pipeline order; others follow in the order of their names.
ORDER = [
    *("fetch", "clean", "train_tokenizer", "tokenize", "tokenizer", "train", "evaluate", "export")
]
SAMPLES = "samples.md"
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


@dataclass(frozen=True)
class Commit:
    """The last commit; its metrics are by file, such as ``train`` or ``timing/train``."""

    sha: str
    day: str  # 2026-01-31
    subject: str
    params: Params
    metrics: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class History:
    """The origin of a run."""

    commit: Commit | None  # the last one; None without git or before the first
    edited: tuple[str, ...]  # files that differ from the commit, results excluded
    params: Params  # of the results, from dvc.lock, or else from params.yaml
    changed_params: Changes  # params of the run that differ from the last commit
    stale_params: Changes  # params edited since the run


def read_results(folder: Path) -> Results:
    """Read the metrics folder of a project."""
    problems: list[str] = []

    def read(parse: Callable[[bytes], tuple[T | None, str]], *patterns: str) -> dict[str, T]:
        """Non-empty files, by path without the suffix."""
        found = {}
        for path in (each for pattern in patterns for each in sorted(folder.glob(pattern))):
            if path.name.startswith(".") or (path.name != SAMPLES and not path.is_file()):
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

    metrics = read(parse_values, "*.json", "timing/*.json")
    tables = read(parse_table, "*.csv", "corpus/*.csv", "tables/*.csv", "timing/*.csv")
    if not (metrics or tables):
        raise AtlasError(f"{folder}: no results yet; run `dvc repro`")
    pictures = read(parse_picture, "pictures/*.png")
    samples = read(lambda content: (_text(content), ""), SAMPLES)
    return Results(
        metrics=dict(sorted(metrics.items(), key=_pipeline_order)),
        tables=tables,
        samples=samples.get("samples", ""),
        pictures={Path(name).name: content for name, content in pictures.items()},
        pages=tuple(sorted(path.name for path in folder.glob("*.html"))),
        problems=tuple(problems),
    )


def read_history(root: Path, metrics: Path) -> History:
    """Read the history of a project from git and dvc.lock; skip missing or damaged parts."""
    run_params: dict[str, Any] = {}
    for stage in _mapping(_load_file(root / "dvc.lock").get("stages")).values():
        params = _mapping(_mapping(stage).get("params"))
        run_params |= dict(leaves(_mapping(params.get("params.yaml"))))
    current = dict(leaves(_load_file(root / "params.yaml")))
    results = metrics.relative_to(root).as_posix()
    edited = _git(root, "diff", "--relative", "--name-only", "-z", "HEAD", "--", ".").split("\0")
    produced = (f"{results}/", "dvc.lock")
    commit = _last_commit(root, results)
    return History(
        commit=commit,
        edited=tuple(readable(name) for name in edited if name and not name.startswith(produced)),
        params=run_params or current,
        changed_params=_changes(commit.params, run_params or current) if commit else [],
        stale_params=_changes(run_params, current),
    )


def _last_commit(root: Path, results: str) -> Commit | None:
    log = _git(root, "log", "-1", "--format=%H%x00%cs%x00%s").strip().split("\0")
    if len(log) != 3:
        return None
    listed = _git(root, "ls-tree", "-r", "-z", "--name-only", "HEAD", f"{results}/").split("\0")
    metrics = {
        name.removeprefix(f"{results}/").removesuffix(".json"): _load(
            _git(root, "show", f"HEAD:./{name}"), json.loads
        )
        for name in listed
        if name.endswith(".json")
    }
    sha, day, subject = map(readable, log)
    params = dict(leaves(_load(_git(root, "show", "HEAD:./params.yaml"))))
    return Commit(sha, day, subject, params, metrics)


def _changes(before: Params, now: Params) -> Changes:
    """The params in both that differ."""

    def comparable(value: Any) -> Any:
        with contextlib.suppress(ValueError):  # YAML 1.1 reads 3e-4 as text
            return float(value) if isinstance(value, str) else value
        return value

    shared = [(key, before[key], value) for key, value in now.items() if key in before]
    return [each for each in shared if comparable(each[1]) != comparable(each[2])]


def _git(root: Path, *arguments: str) -> str:
    """The output of a git command; "" if it fails or git is not installed."""
    command = ["git", *arguments]  # it takes milliseconds
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", errors="replace")


def _load_file(path: Path) -> dict[str, Any]:
    return _load(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}


def _load(text: str, load: Callable[[str], Any] = LOAD_YAML) -> dict[str, Any]:
    """The mapping in a YAML or JSON text; empty if there is none or it is damaged."""
    try:
        return _mapping(load(text))
    except (ValueError, RecursionError, yaml.YAMLError):
        return {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


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


def is_number(value: object) -> TypeGuard[int | float]:
    """Check that a value is a finite number of sensible size."""
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
