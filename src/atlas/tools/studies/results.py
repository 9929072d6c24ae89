"""What became of the runs of a study, read from DVC's experiments.

A finished experiment is a commit; its metrics are files in it. Reading them with git costs
milliseconds, where ``dvc exp show`` takes seconds of the cores on which the next run trains (and
fails while that one is set up).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from atlas.errors import one_line
from atlas.tools.console import printable
from atlas.tools.studies.queue import Entry, file_in, finished
from atlas.tools.studies.study import Run, Study, metrics_file

State = Literal["done", "failed", "running", "queued", "not run"]


@dataclass(frozen=True)
class Result:
    """A run and what became of it.

    Attributes:
        measures: those of the study that the run has, by their names.
        reason: the line that says why it failed.
    """

    run: Run
    state: State
    measures: dict[str, float] = field(default_factory=dict)
    reason: str = ""


def results(root: Path, study: Study, entries: Iterable[Entry]) -> list[Result]:
    """The results of a study's runs, in their order; ``entries`` are those of DVC's queue."""
    done = finished(root)
    waiting = {entry.name: entry for entry in entries}
    found = []
    for run in study.runs:
        if ref := done.get(run.name):
            found.append(Result(run, "done", _measures(root, ref, study.plan.measures)))
        elif entry := waiting.get(run.name):
            reason = reason_of(entry) if entry.state == "failed" else ""
            found.append(Result(run, entry.state, reason=reason))
        else:
            found.append(Result(run, "not run"))
    return found


def _measures(root: Path, ref: str, measures: Iterable[str]) -> dict[str, float]:
    """The measures that an experiment has; numbers alone."""
    files: dict[str, dict[str, object]] = {}
    found: dict[str, float] = {}
    for measure in measures:
        path = metrics_file(measure)
        if path not in files:
            files[path] = json.loads(file_in(root, ref, path) or "{}")
        value = files[path].get(measure.split(".")[-1])
        if isinstance(value, int | float):
            found[measure] = value
    return found


def reason_of(entry: Entry) -> str:
    """The line in which a failed run says why: that of its stage, or else its last one."""
    if entry.log is None or not entry.log.is_file():
        return "it did not start"
    printed = entry.log.read_text(encoding="utf-8", errors="replace")
    lines = [printable(one_line(line)) for line in printed.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it printed nothing"])[-1].removeprefix("error: ")
