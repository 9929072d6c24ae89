"""What a study's file says: a question, what is varied, and what is measured.

A study is one file in studies/, ``studies/lr.yaml``::

    question: Which peak learning rate is best?
    presets: [tiny]                     # overlays on params.yaml, as in presets/
    set: {train.steps: 600}             # values that all runs share
    vary: {train.lr: [1.0e-3, 4.0e-3]}  # or rows: [{model.n_layer: 2, model.d_model: 184}, ...]
    seeds: [1, 2]                       # each value runs with each train.seed
    measures: [evaluate.val_loss]       # metrics/evaluate.json: val_loss; the first one is plotted
    scale: log                          # of the x axis: linear | log | category
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from atlas.errors import AtlasError, one_line
from atlas.params.schema import Section, Seed, explain

FOLDER = "studies"
SEED = "train.seed"
Values = dict[str, Any]
Measure = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)+$")]
Label = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._ -]*)?$")]


class Row(Section):
    """One thing to try: values by dotted key, and how to call it ("" for its values)."""

    label: Label
    values: Annotated[Values, Field(min_length=1)]


def _rows(vary: object) -> object:
    """One key with its values, or a list of rows, as rows."""
    if isinstance(vary, dict) and len(vary) == 1:
        ((key, values),) = vary.items()
        if isinstance(values, list):
            return [{"label": "", "values": {key: value}} for value in values]
    if isinstance(vary, list) and all(isinstance(row, dict) for row in vary):
        return [
            {
                "label": row.get("label", ""),
                "values": {key: value for key, value in row.items() if key != "label"},
            }
            for row in vary
        ]
    raise ValueError("one key with a list of its values, or a list of rows with the same keys")


class Plan(Section):
    """A study's file."""

    question: Annotated[str, Field(min_length=1)]
    presets: Annotated[tuple[str, ...], Field(strict=False)] = ()
    set: Values = Field(default_factory=dict)
    vary: Annotated[tuple[Row, ...], BeforeValidator(_rows), Field(strict=False, min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    measures: Annotated[tuple[Measure, ...], Field(strict=False, min_length=1)]
    scale: Literal["linear", "log", "category"]

    @property
    def keys(self) -> tuple[str, ...]:
        """What is varied; the first one is the x axis."""
        return tuple(self.vary[0].values)

    @model_validator(mode="after")
    def _fits(self) -> "Plan":
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        keys = set(self.keys)
        if any(set(row.values) != keys for row in self.vary):
            yield "vary: give every row the same keys"
        for key in sorted(keys & set(self.set)):
            yield f"{key} stands in set and in vary: leave it out of set"
        if SEED in keys | set(self.set):
            yield f"{SEED} is what seeds gives: leave it out of set and vary"
        for name in ("seeds", "measures"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                yield f"{name} names one twice: {', '.join(map(str, values))}"
        numbers = [row.values[self.keys[0]] for row in self.vary]
        if self.scale != "category":
            for value in map(_as_number, numbers):
                if value is None or (self.scale == "log" and value <= 0):
                    least = " above 0" if self.scale == "log" else ""
                    yield f"scale is {self.scale}: give {self.keys[0]} numbers{least}, or category"


def _as_number(value: object) -> float | None:
    """A number; YAML 1.1 reads 3e-4 as text."""
    try:
        return None if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def available(root: Path) -> list[str]:
    """The names of the studies of a project."""
    return sorted(path.stem for path in (root / FOLDER).glob("*.yaml"))


def file_of(name: str) -> str:
    """Where a study stands, from the root of the project."""
    return f"{FOLDER}/{name}.yaml"


def read_mapping(root: Path, file: str | Path, hint: str) -> dict[str, Any]:
    """A file of keys and values; ``hint`` says what to do where it has none.

    Raises:
        AtlasError: it is not there, not YAML, or has no keys.
    """
    try:
        values = yaml.safe_load((root / file).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise AtlasError(f"{file}: not readable as YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise AtlasError(f"{file}: it has no keys; {hint}")
    return values


def read_plan(root: Path, name: str) -> Plan:
    """Reads and validates a study's file.

    Raises:
        AtlasError: it is not YAML, or not what a study may hold.
    """
    file = file_of(name)
    values = read_mapping(root, file, "studies/lr.yaml shows which a study has")
    try:
        return Plan.model_validate(values)
    except ValidationError as error:
        problems = []
        for details in error.errors():
            whole = not details["loc"]  # a rule that joins several keys
            said = details["msg"].removeprefix("Value error, ")
            problems.append(said if whole else explain(details, Plan, file))
        raise AtlasError("; ".join(f"{file}: {problem}" for problem in problems)) from None
