"""A study and its runs, each validated before anything is run."""

import copy
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.errors import AtlasError
from atlas.params.presets import collected, override
from atlas.params.schema import Params, leaves
from atlas.tools.studies.plan import SEED, Plan, Row, Values, available, file_of, read_plan
from atlas.tools.studies.snapshot import DIGITS, Snapshot

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
PARTS = 4  # of a run's name, between underscores


@dataclass(frozen=True)
class Run:
    """One experiment.

    Attributes:
        name: of the experiment, ``lr_0.004_s1_1a2b3c4d``: study, value, seed, and a hash of what
            decides its results.
        row: place of what it tries in ``vary``.
        overrides: what differs from params.yaml, as ``-S`` of DVC wants it.
    """

    name: str
    row: int
    seed: int
    params: Params
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """A study's plan and its runs: all values with the first seed, then with the next one."""

    name: str
    plan: Plan
    runs: tuple[Run, ...]

    def value(self, row: int, key: str) -> Any:
        """What a row gives a key, as params.yaml understands it."""
        run = next(run for run in self.runs if run.row == row)
        return dict(leaves(run.params.model_dump()))[key]

    def label(self, row: int) -> str:
        """What a row is called."""
        plan = self.plan.vary[row]
        return plan.label or " ".join(text_of(self.value(row, key)) for key in plan.values)


def load_study(root: Path, name: str, snapshot: Snapshot | None = None) -> Study:
    """Reads a study and makes its runs; ``snapshot`` is the project as it is now.

    Raises:
        AtlasError: there is no such study, its file is wrong, or params.yaml refuses a run.
    """
    if name not in (known := available(root)):
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise AtlasError(f"study {name}: no such study; {hint}there are {', '.join(known)}")
    file = file_of(name)
    if not NAME.fullmatch(name):
        raise AtlasError(f"{file}: name it with small letters, digits and '-' alone")
    plan = read_plan(root, name)
    snapshot = snapshot or Snapshot(root)
    for measure in plan.measures:
        if (path := metrics_file(measure)) not in snapshot.metrics:
            raise AtlasError(
                f"{file}: measures: {measure} would be in {path}, which no stage writes"
            )
    shared = collected(root, plan.presets) | plan.set
    runs = [
        _run(name, (number, row), seed, shared, snapshot)
        for seed in plan.seeds
        for number, row in enumerate(plan.vary)
    ]
    stems = [run.name.rpartition("_")[0] for run in runs]
    for stem in stems:
        if stems.count(stem) > 1:
            raise AtlasError(f"{file}: vary: two rows are called {stem}: give them labels")
    return Study(name, plan, tuple(runs))


def belongs(experiment: str, study: str) -> bool:
    """Whether an experiment is a run of a study, as it is now or as it was once."""
    parts = experiment.split("_")
    return len(parts) == PARTS and parts[0] == study and len(parts[-1]) == DIGITS


def metrics_file(measure: str) -> str:
    """The file of a measure: ``evaluate.val_loss`` is in ``metrics/evaluate.json``."""
    return f"metrics/{'/'.join(measure.split('.')[:-1])}.json"


def text_of(value: object) -> str:
    """A value as a short text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text_of, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _run(
    name: str, numbered: tuple[int, Row], seed: int, shared: Values, snapshot: Snapshot
) -> Run:
    number, row = numbered
    file = file_of(name)
    values = shared | row.values | {SEED: seed}
    called = row.label or ", ".join(f"{key}={text_of(each)}" for key, each in row.values.items())
    params = Params.from_mapping(_merged(snapshot.params, values, file), f"{file}, {called}")
    found = dict(leaves(params.model_dump()))
    texts = [row.label] if row.label else [text_of(found[key]) for key in row.values]
    stem = re.sub(r"[^A-Za-z0-9.]+|[.]{2,}", "-", "-".join(texts)).strip("-.")
    return Run(
        name=f"{name}_{stem}_s{seed}_{snapshot.fingerprint(params)}",
        row=number,
        seed=seed,
        params=params,
        overrides=tuple(f"{key}={override(_plain(found[key]))}" for key in values),
    )


def _merged(tree: Values, values: Values, file: str) -> Values:
    """params.yaml with values by dotted key."""
    merged = copy.deepcopy(tree)
    known = [key for key, _ in leaves(tree)]
    for dotted, value in values.items():
        if dotted not in known:
            close = difflib.get_close_matches(dotted, known, n=1)
            hint = f": did you mean {close[0]}?" if close else ""
            raise AtlasError(f"{file}: {dotted} is not a key of params.yaml{hint}")
        *sections, key = dotted.split(".")
        place = merged
        for section in sections:
            place = place[section]
        place[key] = value
    return merged


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
