"""The runs of a study, one after the other, through DVC's queue.

All that is missing is queued first: each entry is a copy of the project as it is now, so that one
may go on editing. Then a worker, a child of this process, runs the queue.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from atlas.errors import AtlasError
from atlas.tools.studies import worker
from atlas.tools.studies.queue import Entry, Queue, environment, finished, is_run
from atlas.tools.studies.results import Result, results
from atlas.tools.studies.study import Run, Study, belongs, load_study

LOG = Path(".dvc/tmp/exps/celery/atlas-study.out")
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_COPY = 5.0  # in which a worker has no process yet for what it runs
SECONDS_TO_END = 120.0  # for the worker of a study that was killed
Report = Callable[[Result], None]


def tidy(root: Path, queue: Queue, study: Study) -> None:
    """Leaves in the queue what the study wants: what failed or was broken off is tried again."""
    _wait_for_an_older_worker(root)
    wanted = {run.name for run in study.runs} - set(finished(root))
    for entry in queue.entries():
        if not belongs(entry.name, study.name):
            continue
        if entry.state == "running" and _runs(queue, entry):
            continue
        if entry.state == "queued" and entry.name in wanted:
            wanted.remove(entry.name)  # a second one of the name is too many
            continue
        queue.remove([entry])


def _wait_for_an_older_worker(root: Path) -> None:
    lock = root / worker.LOCK
    lock.parent.mkdir(exist_ok=True)
    try:
        with FileLock(lock, timeout=SECONDS_TO_END):
            return
    except Timeout:
        raise AtlasError(
            f"{worker.LOCK}: the worker of an earlier study does not end; its log is {LOG}"
        ) from None


def _runs(queue: Queue, entry: Entry) -> bool:
    if entry.pid is None:
        time.sleep(SECONDS_TO_COPY)
        (entry,) = [each for each in queue.entries() if each.rev == entry.rev] or [entry]
    return is_run(entry)


def put_missing(root: Path, queue: Queue, study: Study) -> list[Run]:
    """Queues the runs that are neither done nor in the queue; returns all that are not done.

    Raises:
        AtlasError: dvc.lock tells of a run that is not in DVC's cache; or params, code or data
            were edited meanwhile, and nothing new stays queued.
    """
    waiting = {entry.name for entry in queue.entries() if entry.state != "failed"}
    done = finished(root)
    missing = [run for run in study.runs if run.name not in done]
    new = [run for run in missing if run.name not in waiting]
    if new and (folders := queue.folders_not_cached()):
        raise AtlasError(
            f"dvc.lock tells of a run that is not in DVC's cache ({', '.join(folders)}), and DVC's "
            "experiments fail without it: `dvc repro` makes it"
        )
    try:
        for run in new:
            queue.put(run)
        if new and load_study(root, study.name).runs != study.runs:
            raise AtlasError("the project was edited while its copies were made; run this again")
    except BaseException:  # Ctrl+C among them: nobody looked whether the copies are of one state
        names = {run.name for run in new}
        queue.remove([entry for entry in queue.entries() if entry.name in names])
        raise
    return missing


def ahead(queue: Queue, missing: list[Run]) -> list[str]:
    """What somebody, or another study, has queued: it runs as well, what is older first."""
    names = {run.name for run in missing}
    others = [entry for entry in queue.entries() if entry.state == "queued"]
    return [entry.name or entry.rev[:7] for entry in others if entry.name not in names]


def run_missing(root: Path, queue: Queue, study: Study, missing: list[Run], report: Report) -> None:
    """Runs the queue until these runs have ended; ``report`` is told of each that does.

    A worker may end before they do: ``dvc queue kill`` ends it too, and now and then Celery reads a
    message that is not yet written (kombu's file system transport). Another one takes its place.

    Raises:
        AtlasError: a worker ended and no run with it.
    """
    pending = {run.name: run for run in missing}
    (root / LOG).unlink(missing_ok=True)
    try:
        while pending:
            before = len(pending)
            with _worker(root) as process:
                _watch(process, root, queue, study, pending, report)
                if not pending and _has_others(queue, study):
                    process.wait()  # what somebody else has queued
            if len(pending) == before:
                raise AtlasError(f"{LOG}: DVC's worker ended too early; see what it says there")
    finally:
        left = [entry for entry in queue.entries() if entry.name in pending]
        broken_off = [entry for entry in left if entry.state == "failed"]
        broken_off += [each for each in left if each.state == "running" and not is_run(each)]
        queue.remove(broken_off)


def _watch(
    process: subprocess.Popen[bytes],
    root: Path,
    queue: Queue,
    study: Study,
    pending: dict[str, Run],
    report: Report,
) -> None:
    """Takes out of ``pending`` what ends, until nothing is left or the worker has ended."""
    is_over = False
    while pending and not is_over:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        has_ended = process.poll() is not None
        looked = results(root, replace(study, runs=tuple(pending.values())), queue.entries())
        for result in looked:
            if result.state in ("running", "queued"):
                continue
            if result.state == "not run":
                result = replace(result, state="failed", reason=f"DVC lost it: see {LOG}")
            del pending[result.run.name]
            report(result)
        is_over = has_ended and not any(result.state == "running" for result in looked)


def _has_others(queue: Queue, study: Study) -> bool:
    names = {run.name for run in study.runs}
    return any(each.state != "failed" and each.name not in names for each in queue.entries())


@contextmanager
def _worker(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of the queue, in a process group of its own, which Ctrl+C does not reach."""
    (root / LOG).parent.mkdir(parents=True, exist_ok=True)
    with (root / LOG).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "atlas.tools.studies.worker"],
            cwd=root,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process
    except KeyboardInterrupt:
        print("what runs is ended, and will go on from its checkpoint", flush=True)
        raise
    finally:
        if process.stdin:
            process.stdin.close()  # it ends what it runs, and itself
        try:
            process.wait()
        except KeyboardInterrupt:  # a second one
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
