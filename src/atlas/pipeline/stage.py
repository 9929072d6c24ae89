"""Helpers that all stage scripts share.

The runner validates the params, fingerprints the inputs of the stage, publishes its outputs whole
or not at all, and turns errors into one line and an exit code. A stage script is a recipe::

    def main(run: StageRun) -> None:
        counts = clean_corpus(Path("data/raw"), run.output("data/clean"), run.params.clean)
        run.write_metrics(counts)

    if __name__ == "__main__":
        run_stage("clean", main)

DVC hashes inputs after a stage has ended (dvc#11058): code or params edited while it ran would be
recorded with the old result. A stage therefore reads its entry in dvc.yaml, fingerprints
everything listed there before it starts, and compares again before it publishes its outputs.
"""

import atexit
import functools
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from atlas.errors import NO_ROOM, AtlasError, NotWritten, helps_another, one_line_errors
from atlas.params.overrides import leaves
from atlas.params.schema import Params, load_params
from atlas.params.settings import settings
from atlas.pipeline.files import (
    files_below,
    older_path,
    partial_path,
    put_in_place,
    remove,
    sha256,
    write_csv,
    write_json,
    write_text,
)
from atlas.pipeline.processes import end_with_dvc, stop_on_signals
from atlas.pipeline.restore import (
    COPIES,
    clean_up,
    clean_up_at_exit,
    reattach_head,
    without_signals,
)

PARAMS = Path("params.yaml")
LOCK_TIMEOUT = 30.0  # seconds; a killed run needs a moment to end
Metric = int | float | str


@dataclass(frozen=True)
class StageSpec:
    """A stage's entry in dvc.yaml."""

    params: tuple[str, ...]  # sections or dotted keys
    deps: tuple[Path, ...]
    outs: tuple[Path, ...]

    @classmethod
    def from_dvc_yaml(cls, name: str, values: Mapping[str, Any]) -> "StageSpec":
        """Read the entry of a stage; ``values``, by dotted key, fill in ``${...}`` in deps."""
        stage = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
        deps = [
            re.sub(r"\$\{([\w.]+)\}", lambda m: str(values[m[1]]), dep) for dep in stage["deps"]
        ]
        outs = [
            next(iter(out)) if isinstance(out, dict) else out
            for kind in ("outs", "metrics", "plots")
            for out in stage.get(kind, [])
        ]
        return cls(tuple(stage.get("params", [])), tuple(map(Path, deps)), tuple(map(Path, outs)))

    def inputs(self) -> dict[str, str]:
        """Map each param and file that the stage reads to its value or hash."""
        found = {
            f"params.yaml: {key}": json.dumps(value)
            for key, value in leaves(load_params(PARAMS).model_dump())
            if key in self.params or key.split(".")[0] in self.params
        }
        for dep in self.deps:
            if not dep.exists():
                raise AtlasError(f"{dep}: missing; `dvc repro` creates it")
            found |= {str(file): _hash(file) for file in files_below(dep)}
        return found


@dataclass
class StageRun:
    """One execution of a stage.

    The folder of checkpoints belongs to exactly these params, code and inputs, and is removed when
    the stage succeeds; experiments that DVC runs in copies of the project share it. Speeds differ
    from run to run, so their files are not outputs of the stage: equal runs have equal hashes.
    """

    name: str
    params: Params
    checkpoints: Path  # whatever lets an interrupted run resume
    events: Path  # for TensorBoard, in the user's checkout even for experiments
    spec: StageSpec
    timing: dict[str, Metric] = field(default_factory=dict)  # metrics/timing/<stage>.json
    timing_rows: list[dict[str, int | float]] = field(default_factory=list)  # and .csv, by step
    _written: list[Path] = field(default_factory=list)

    def output(self, path: str) -> Path:
        """Return a temporary path for the output ``path``; it is renamed on success."""
        final = Path(path)
        if final not in self.spec.outs:
            raise AtlasError(f"dvc.yaml: stage {self.name} declares no output {path}; add it")
        partial = partial_path(final)
        remove(partial)
        remove(older_path(final))
        partial.parent.mkdir(parents=True, exist_ok=True)
        self._written.append(final)
        return partial

    def output_folder(self, path: str) -> Path:
        """Create the output folder ``path``, empty; it is renamed on success."""
        folder = self.output(path)
        folder.mkdir()
        return folder

    def write_metrics(self, metrics: Mapping[str, Metric], name: str | None = None) -> None:
        """Write metrics/<stage>.json: only numbers that the same inputs reproduce.

        It is ASCII, since DVC takes a file with many other characters for a binary one.
        """
        text = json.dumps(_finite(metrics), indent=2, allow_nan=False)
        write_text(self.output(f"metrics/{name or self.name}.json"), f"{text}\n")

    @contextmanager
    def publishing(self, inputs: Mapping[str, str]) -> Iterator[None]:
        """Rename every output to its final name if the block succeeds and no input changed."""
        try:
            yield
            if changed := sorted({key for key, _ in inputs.items() ^ self.spec.inputs().items()}):
                more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
                raise AtlasError(
                    f"{changed[0]}{more} changed while the stage ran, so the result matches "
                    "neither version and was discarded: run `dvc repro` again"
                )
            with without_signals():  # all outputs or none
                for final in self._written:
                    put_in_place(partial_path(final), final)
        except OSError as error:
            if error.errno not in NO_ROOM or error.filename:
                raise
            outs = ", ".join(str(final) for final in self._written) or f"stage {self.name}"
            raise NotWritten(outs, error.strerror) from error
        finally:
            self.discard_outputs()

    def discard_outputs(self) -> None:
        """Remove the outputs that are not published yet."""
        for final in self._written:
            remove(partial_path(final))
        self._written.clear()

    def write_timing(self, seconds: float) -> None:
        """Write the duration and speeds of the run."""
        self.timing["seconds"] = round(seconds, 2)
        path = Path(f"metrics/timing/{self.name}.json")
        write_json(path, _finite(self.timing))
        if self.timing_rows:
            write_csv(path.with_suffix(".csv"), self.timing_rows)


def run_stage(name: str, body: Callable[[StageRun], None]) -> None:
    """Run ``main`` of a stage script; the current folder is the checkout."""
    atexit.unregister(clean_up_at_exit)
    with one_line_errors():
        try:
            end_with_dvc(reattach_head)
            stop_on_signals()
            _run_stage(name, body)
        except BaseException as error:
            if note := clean_up(name):
                error.add_note(note)
            raise


def _run_stage(name: str, body: Callable[[StageRun], None]) -> None:
    started = time.perf_counter()
    params = load_params(PARAMS)
    settings()  # reject invalid ones before any work
    spec = StageSpec.from_dvc_yaml(name, dict(leaves(params.model_dump())))
    inputs = spec.inputs()
    fingerprint = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]
    checkpoints = project_root() / ".ckpt" / name / fingerprint
    experiment = os.environ.get("DVC_EXP_NAME", "workspace")
    events = project_root() / "metrics/tensorboard" / f"{experiment}-{fingerprint[:6]}"
    run = StageRun(name, params, checkpoints, events, spec)
    if helps_another():  # the first process locks, prints and publishes
        body(run)
        return
    here = Path(".ckpt") / f"{name}.lock"
    with _locked(here), _locked(checkpoints.with_suffix(".lock")):
        with run.publishing(inputs):
            body(run)
            run.write_timing(time.perf_counter() - started)
        remove(checkpoints)


@contextmanager
def _locked(lock_file: Path) -> Iterator[None]:
    """Prevent two simultaneous runs of a stage from writing the same files."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=LOCK_TIMEOUT)
    except Timeout:
        message = f"{lock_file}: this stage is already running; wait for it or stop it"
        raise AtlasError(message) from None
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)  # while still locked, so that no other run holds it
        lock.release()


def project_root() -> Path:
    """Return the user's checkout, even inside a copy that ``dvc exp run --temp`` made of it."""
    here = os.environ.get("DVC_ROOT", str(Path.cwd()))
    return Path(here.split(COPIES)[0])


def resolve_user_path(path: str) -> Path:
    """Resolve a path from the user against their checkout, even inside DVC's copies of it."""
    return project_root() / Path(path).expanduser()


def _hash(file: Path) -> str:
    stat = file.stat()
    return _hash_of_state(file, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash_of_state(file: Path, *_state: int) -> str:
    """Hash a file; cached by its state, so that unchanged files are not read again."""
    return sha256(file)


def _finite(metrics: Mapping[str, Metric]) -> Mapping[str, Metric]:
    for key, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise AtlasError(f"metric {key} is {value}: the result is unusable and was discarded")
    return metrics
