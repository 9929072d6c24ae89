"""A study: a file in ``studies/``, the runs it defines, and the inputs that decide their results.

::

    # studies/lr.yaml
    question: Which peak learning rate is best?
    presets: [tiny]                     # overlays on params.yaml; optional
    set: {train.steps: 600}             # values shared by all runs; optional
    vary: {train.lr: [1.0e-3, 4.0e-3]}  # or rows: [{model.n_layer: 2, model.d_model: 184}, ...]
    seeds: [1, 2]                       # every value runs with every train.seed
    measures: [evaluate.val_loss]       # val_loss of metrics/evaluate.json; the first is plotted
    scale: log                          # of the x axis: linear | log | category
"""

import copy
import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from dvc.api import DVCFileSystem
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from atlas.errors import AtlasError, did_you_mean, one_line
from atlas.params.overrides import leaves
from atlas.params.overrides import override as format_value
from atlas.params.presets import collect, set_values
from atlas.params.schema import Params, Section, Seed, explain
from atlas.pipeline.files import files_below, sha256

FOLDER = "studies"
SEED = "train.seed"
HASH_DIGITS = 8
HOW_TO_RESTORE = "`git checkout` restores it"
STUDY_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
Values = dict[str, Any]
Measure = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$")]
Label = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._ -]*)?$")]


class Row(Section):
    """One variant to try: values by dotted key, and a label ("" shows the values)."""

    label: Label
    values: Annotated[Values, Field(min_length=1)]


def _as_rows(vary: object) -> object:
    """Turn either form of ``vary`` into rows."""
    if isinstance(vary, dict) and len(vary) == 1:
        ((key, values),) = vary.items()
        if isinstance(values, list):
            return [{"label": "", "values": {key: value}} for value in values]
    if isinstance(vary, list) and all(isinstance(row, dict) for row in vary):
        return [
            {"label": row.get("label", ""), "values": {k: row[k] for k in row if k != "label"}}
            for row in vary
        ]
    raise ValueError("one key with a list of its values, or a list of rows with the same keys")


class StudySpec(Section):
    """The content of a study's file."""

    question: Annotated[str, Field(min_length=1)]
    presets: Annotated[tuple[str, ...], Field(strict=False)] = ()
    set: Values = Field(default_factory=dict)
    vary: Annotated[tuple[Row, ...], BeforeValidator(_as_rows), Field(strict=False, min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    measures: Annotated[tuple[Measure, ...], Field(strict=False, min_length=1)]
    scale: Literal["linear", "log", "category"]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that vary; the first one is the x axis."""
        return tuple(self.vary[0].values)

    @model_validator(mode="after")
    def _check(self) -> "StudySpec":
        keys = set(self.keys)
        if any(set(row.values) != keys for row in self.vary):
            raise ValueError("vary: give every row the same keys")
        if in_both := sorted(keys & set(self.set)):
            raise ValueError(f"{in_both[0]} is in both set and vary: remove it from set")
        if SEED in keys | set(self.set):
            raise ValueError(f"{SEED} comes from seeds: remove it from set and vary")
        for name, values in {"seeds": self.seeds, "measures": self.measures}.items():
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has a duplicate: {', '.join(map(str, values))}")
        for row in self.vary if self.scale != "category" else ():
            value = _as_number(row.values[self.keys[0]])
            if value is None or (self.scale == "log" and value <= 0):
                bound = " above 0" if self.scale == "log" else ""
                raise ValueError(
                    f"scale is {self.scale}: {self.keys[0]} needs numbers{bound}; "
                    "otherwise use scale: category"
                )
        return self


def _as_number(value: object) -> float | None:
    """Convert a value to a number; YAML 1.1 reads 3e-4 as text."""
    try:
        return None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


class Snapshot:
    """The params, code and data in the working tree at one moment.

    Equal inputs give equal bytes, whichever commit they come from. The name of an experiment ends
    with a hash of its inputs, so the name tells whether a study still needs to run it.
    """

    def __init__(self, root: Path) -> None:
        pipeline = read_mapping(root, "dvc.yaml", HOW_TO_RESTORE)
        self.params = read_mapping(root, "params.yaml", HOW_TO_RESTORE)  # not validated
        stages = pipeline["stages"].values()
        outs = {
            out
            for stage in stages
            for kind in ("outs", "metrics", "plots")
            for out in _paths(stage.get(kind, []))
        }
        tables = (*stages, pipeline)
        self.metrics = {path for table in tables for path in _paths(table.get("metrics", []))}
        self.root = root
        self._commands = {name: stage["cmd"] for name, stage in pipeline["stages"].items()}
        self._deps = sorted(
            dep
            for dep in {dep for stage in stages for dep in stage["deps"]}
            if not any(dep == out or dep.startswith(f"{out}/") for out in outs)
        )
        self._tracked = _git_files(root)
        self._untracked = _git_files(root, "--others", "--exclude-standard")
        self._hashes: dict[tuple[str, bool], dict[str, str]] = {}

    def fingerprint(self, params: Params) -> str:
        """Hash the inputs of a run with these params."""
        inputs = [params.model_dump(), self._commands, self._files(params)]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:HASH_DIGITS]

    def matches(self, experiment: str, params: Params) -> bool:
        """Check that an experiment ran with these params and with the files of this snapshot."""
        copy = DVCFileSystem(str(self.root), rev=experiment)
        values = yaml.safe_load(copy.read_text("params.yaml"))
        if Params.from_mapping(values, f"params.yaml of {experiment}", self.root) != params:
            return False
        return all(
            copy.isfile(path) and hashlib.sha256(copy.read_bytes(path)).hexdigest() == digest
            for path, digest in self._files(params).items()
            if not Path(path).is_absolute()
        )

    def _files(self, params: Params) -> dict[str, str]:
        """Map each file that the stages read to its hash."""
        values = dict(leaves(params.model_dump()))
        files: dict[str, str] = {}
        for dep in self._deps:
            path = re.sub(r"\$\{([\w.]+)\}", lambda key: str(values[key[1]]), dep)
            is_own_text = params.corpus.has_files and path == params.corpus.files.path
            key = (path, is_own_text)
            if key not in self._hashes:
                names = self._names(path, is_own_text)
                self._hashes[key] = {name: sha256(self.root / name) for name in names}
            files |= self._hashes[key]
        return files

    def _names(self, path: str, is_own_text: bool) -> list[str]:
        """List the files of a dependency; DVC's copy of the project must have them.

        It may lack those that git ignores, except in the user's own text.
        """
        found = [file for file in files_below(self.root / path) if file.is_file()]
        if Path(path).is_absolute():
            return [str(file) for file in found]
        names = {file.relative_to(self.root).as_posix() for file in found}
        known = names & self._tracked
        unknown = names - known if is_own_text else names & self._untracked
        if unknown or not known:
            file = path if is_own_text else min(unknown, default=path)
            raise AtlasError(
                f"{file}: git does not track all of it, but experiments need that: "
                f"`git add -f {file}`, or use an absolute path"
            )
        return sorted(known)


@dataclass(frozen=True)
class StudyRun:
    """One experiment of a study.

    The name of the DVC experiment, ``lr_0.004_s1_1a2b3c4d``, consists of study, value, seed, and a
    hash of the inputs that decide its results.
    """

    name: str
    row: int  # index into ``vary``
    seed: int
    params: Params
    overrides: tuple[str, ...]  # of params.yaml, in the syntax of ``dvc exp run -S``


@dataclass(frozen=True)
class Study:
    """A study and its runs, ordered by seed, then by row."""

    name: str
    spec: StudySpec
    runs: tuple[StudyRun, ...]

    def value(self, row: int, key: str) -> Any:
        """Return the value of a key in a row, as params.yaml parses it."""
        run = next(run for run in self.runs if run.row == row)
        return dict(leaves(run.params.model_dump(mode="json")))[key]

    def label(self, row: int, keys: Sequence[str] = ()) -> str:
        """Return the label of a row, by default its values of some or all keys."""
        values = [format_value(self.value(row, key)) for key in keys or self.spec.keys]
        return self.spec.vary[row].label or " ".join(values)


def available(root: Path) -> list[str]:
    """List the names of the studies in a project."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))


def study_file(name: str) -> str:
    """Return the path of a study's file, relative to the root of the project."""
    return f"{FOLDER}/{name}.yaml"


def metrics_file(measure: str) -> str:
    """Return the metrics file of a measure: ``evaluate.val_loss`` is in metrics/evaluate.json."""
    return f"metrics/{'/'.join(measure.split('.')[:-1])}.json"


def load_study(root: Path, name: str, snapshot: Snapshot | None = None) -> Study:
    """Read a study and validate each of its runs; ``snapshot`` gives the inputs they depend on."""
    if name not in (known := available(root)):
        hint = did_you_mean(name, known)
        raise AtlasError(f"study {name}: no such study{hint} (available: {', '.join(known)})")
    file = study_file(name)
    if not STUDY_NAME.fullmatch(name):
        raise AtlasError(f"{file}: use only lower-case letters, digits and '-' in the name")
    try:
        spec = StudySpec.model_validate(read_mapping(root, file, "see studies/lr.yaml"))
    except ValidationError as error:
        problems = [
            explain(details, StudySpec, file)
            if details["loc"]
            else details["msg"].removeprefix("Value error, ")  # a rule on several keys
            for details in error.errors()
        ]
        raise AtlasError("; ".join(f"{file}: {problem}" for problem in problems)) from None
    snapshot = snapshot or Snapshot(root)
    for measure in spec.measures:
        if (path := metrics_file(measure)) not in snapshot.metrics:
            raise AtlasError(f"{file}: measures: no stage writes {path}, the file of {measure}")
    shared = collect(root, spec.presets) | spec.set
    runs = tuple(
        _make_run(name, row, seed, spec.vary[row], shared, snapshot)
        for seed in spec.seeds
        for row in range(len(spec.vary))
    )
    stems = [run.name.rpartition("_")[0] for run in runs]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise AtlasError(f"{file}: vary: two rows are named {twice[0]}; give them labels")
    return Study(name, spec, runs)


def _make_run(
    study: str, number: int, seed: int, row: Row, shared: Values, snapshot: Snapshot
) -> StudyRun:
    file = study_file(study)
    values = shared | row.values | {SEED: seed}
    title = row.label or ", ".join(f"{key}={format_value(row.values[key])}" for key in row.values)
    tree = copy.deepcopy(snapshot.params)
    set_values(tree, values, file)
    params = Params.from_mapping(tree, f"{file}, {title}", snapshot.root)
    parsed = dict(leaves(params.model_dump(mode="json")))
    text = row.label or "-".join(format_value(parsed[key]) for key in row.values)
    stem = re.sub(r"[^A-Za-z0-9.]+|[.]{2,}", "-", text).strip("-.")
    return StudyRun(
        name=f"{study}_{stem}_s{seed}_{snapshot.fingerprint(params)}",
        row=number,
        seed=seed,
        params=params,
        overrides=tuple(f"{key}={format_value(parsed[key])}" for key in values),
    )


def read_mapping(root: Path, file: str, hint: str) -> dict[str, Any]:
    """Read a YAML file of keys and values; ``hint`` tells the user what to do if it has none."""
    try:
        values = yaml.safe_load((root / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AtlasError(f"{file}: not readable as YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise AtlasError(f"{file}: it has no keys; {hint}")
    return values


def _paths(entries: list[Any]) -> list[str]:
    """Return the paths in a list of dvc.yaml, whose entries may carry settings."""
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def _git_files(root: Path, *options: str) -> set[str]:
    """List files of the git repository, relative to the root."""
    command = ["git", "ls-files", "-z", *options]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if listed.returncode:
        raise AtlasError(f"{root}: not a git repository, which DVC experiments need: `git init`")
    return set(listed.stdout.split("\0"))
