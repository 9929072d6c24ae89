"""What every stage script shares.

That is: validated params, a fingerprint of its inputs, outputs that appear whole or not at
all, metrics, and an exit code.

A stage script is a recipe::

    def main(run: Run) -> None:
        counts = clean_corpus(Path("data/raw"), run.output("data/clean"), run.params.clean)
        run.write_metrics(counts)

    if __name__ == "__main__":
        run_stage("clean", main)

DVC hashes inputs after a stage has ended (dvc#11058), so code or params edited while it ran
would be recorded as those of the old result. A stage therefore reads its own entry in
dvc.yaml, fingerprints everything named there before it starts, and compares before its
outputs take their names.
"""

import functools
import hashlib
import json
import math
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from atlas.errors import NO_ROOM, AtlasError, helps_another, one_line_errors
from atlas.params.schema import Params, leaves, load_params
from atlas.pipeline.files import (
    files_below,
    older_path,
    partial_path,
    put_in_place,
    remove,
    sha256,
    write_csv,
    write_json,
)
from atlas.pipeline.processes import end_with_dvc

PARAMS = Path("params.yaml")
SECONDS_TO_WAIT = 30.0
Metric = int | float | str


@dataclass(frozen=True)
class StageSpec:
    """What dvc.yaml says of a stage: the params and files it reads, the files it writes."""

    params: tuple[str, ...]
    deps: tuple[Path, ...]
    outs: tuple[Path, ...]

    @classmethod
    def read(cls, name: str, values: Mapping[str, Any]) -> "StageSpec":
        """Reads the entry of stage ``name``; ``values`` are all params, by dotted key."""
        stage = yaml.safe_load(Path("dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
        outs = [
            next(iter(out)) if isinstance(out, dict) else out
            for kind in ("outs", "metrics", "plots")
            for out in stage.get(kind, [])
        ]
        return cls(
            params=tuple(stage.get("params", [])),
            deps=tuple(
                Path(re.sub(r"\$\{([\w.]+)\}", lambda key: str(values[key[1]]), dep))
                for dep in stage["deps"]
            ),
            outs=tuple(Path(out) for out in outs),
        )

    def inputs(self) -> dict[str, str]:
        """Each param and file that the stage reads, with its value or hash.

        Raises:
            AtlasError: a file is missing.
        """
        values = dict(leaves(load_params(PARAMS).model_dump()))
        found = {
            f"params.yaml: {key}": json.dumps(value)
            for key, value in values.items()
            if key in self.params or key.split(".")[0] in self.params
        }
        for dep in self.deps:
            if not dep.exists():
                raise AtlasError(f"{dep}: missing; `dvc repro` makes what comes before this stage")
            found |= {str(file): _hash(file) for file in files_below(dep)}
        return found


@dataclass
class Run:
    """One execution of a stage.

    Attributes:
        name: of the stage.
        params: the whole of params.yaml, validated.
        checkpoints: folder for what lets an interrupted run go on. It belongs to exactly
            these params, this code and these inputs, is shared with the experiments that
            DVC runs in copies of the project, and is removed once the stage has succeeded.
        timing: speeds, which no two runs share. They go to metrics/timing/<stage>.json, which
            is no output of the stage, so that equal runs have equal hashes.
        timing_rows: speeds over the steps of a stage, for metrics/timing/<stage>.csv.
        events: folder for TensorBoard. Experiments that run in copies of the project have theirs
            in the user's checkout as well, side by side.
    """

    name: str
    params: Params
    checkpoints: Path
    events: Path
    timing: dict[str, Metric] = field(default_factory=dict)
    timing_rows: list[dict[str, int | float]] = field(default_factory=list)
    _outs: tuple[Path, ...] = ()
    _written: list[Path] = field(default_factory=list)

    def output(self, path: str) -> Path:
        """Where to write the output ``path``; it takes its name when the stage has succeeded."""
        final = Path(path)
        if final not in self._outs:
            raise AtlasError(f"dvc.yaml: stage {self.name} declares no output {path}; add it")
        partial = partial_path(final)
        remove(partial)
        remove(older_path(final))
        partial.parent.mkdir(parents=True, exist_ok=True)
        self._written.append(final)
        return partial

    def output_folder(self, path: str) -> Path:
        """The same for a folder of files, which is there, empty."""
        folder = self.output(path)
        folder.mkdir()
        return folder

    def write_metrics(self, metrics: Mapping[str, Metric]) -> None:
        """Writes metrics/<stage>.json: numbers that the same inputs give again."""
        write_json(self.output(f"metrics/{self.name}.json"), _finite(metrics))

    def publish(self) -> None:
        """Gives every output its name, each whole."""
        for final in self._written:
            put_in_place(partial_path(final), final)

    def no_room(self, error: OSError) -> str:
        """Says what a full disk, which does not tell its file, was about."""
        outs = ", ".join(str(final) for final in self._written) or f"stage {self.name}"
        return f"{outs}: not written ({error.strerror}); free some space and run again"

    def write_timing(self, seconds: float) -> None:
        """Writes the speeds of the run."""
        self.timing["seconds"] = round(seconds, 2)
        path = Path(f"metrics/timing/{self.name}.json")
        write_json(path, _finite(self.timing))
        if self.timing_rows:
            write_csv(path.with_suffix(".csv"), self.timing_rows)

    def discard(self) -> None:
        """Removes outputs that did not become whole."""
        for final in self._written:
            remove(partial_path(final))


def run_stage(name: str, body: Callable[[Run], None]) -> None:
    """Runs a stage script's ``main`` in the checkout that is the current folder."""
    with one_line_errors():
        end_with_dvc()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        started = time.perf_counter()
        params = load_params(PARAMS)
        spec = StageSpec.read(name, dict(leaves(params.model_dump())))
        inputs = spec.inputs()
        fingerprint = _fingerprint(inputs)
        checkpoints = project_root() / ".ckpt" / name / fingerprint
        experiment = os.environ.get("DVC_EXP_NAME", "workspace")
        events = project_root() / "metrics/tensorboard" / f"{experiment}-{fingerprint[:6]}"
        run = Run(name, params, checkpoints, events, _outs=spec.outs)
        if helps_another():  # locks, outputs and prints are those of the first process
            body(run)
            return
        here = Path(".ckpt") / f"{name}.lock"
        with _alone(here), _alone(checkpoints.with_suffix(".lock")):
            try:
                body(run)
                _check_unchanged(inputs, spec.inputs())
                run.publish()
            except OSError as error:
                if error.errno not in NO_ROOM or error.filename:
                    raise
                raise AtlasError(run.no_room(error)) from error
            finally:
                run.discard()
            remove(checkpoints)
        run.write_timing(time.perf_counter() - started)


@contextmanager
def _alone(lock_file: Path) -> Iterator[None]:
    """Keeps a second run of the same stage from the same files until this one has ended.

    Raises:
        AtlasError: another one holds the lock for longer than a killed run needs to end.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=SECONDS_TO_WAIT)
    except Timeout:
        raise AtlasError(
            f"{lock_file}: this stage is running already; wait for it or end it"
        ) from None
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)  # while it is held, so that nobody loses it
        lock.release()


def project_root() -> Path:
    """The user's checkout, also from within a copy that ``dvc exp run --temp`` made of it."""
    here = os.environ.get("DVC_ROOT", str(Path.cwd()))
    return Path(here.split(f"{os.sep}.dvc{os.sep}tmp{os.sep}exps{os.sep}")[0])


def from_environment(path: str) -> Path:
    """A path given by the user, relative to their checkout even in DVC's copies of it."""
    return project_root() / Path(path).expanduser()


def _hash(file: Path) -> str:
    stat = file.stat()
    return _hash_of_state(file, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash_of_state(file: Path, *_state: int) -> str:
    """The second look at gigabytes of input costs nothing while the file has not changed."""
    return sha256(file)


def _fingerprint(inputs: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _check_unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> None:
    changed = sorted(
        key for key in before.keys() | after.keys() if before.get(key) != after.get(key)
    )
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise AtlasError(
            f"{changed[0]}{more} changed while the stage ran, so its result belongs to neither "
            "version and was not kept: run `dvc repro` again"
        )


def _finite(metrics: Mapping[str, Metric]) -> Mapping[str, Metric]:
    for key, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise AtlasError(f"metric {key} is {value}: no result to keep")
    return metrics
