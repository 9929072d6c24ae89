"""``atlas study``: runs what a study wants and does not have, and writes what was found."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.repo import Repo
from filelock import FileLock, Timeout
from rich.table import Table

from atlas.errors import AtlasError, Stopped
from atlas.tools.console import plain_console
from atlas.tools.studies.plan import available
from atlas.tools.studies.queue import Queue, finished
from atlas.tools.studies.results import Result, results
from atlas.tools.studies.session import ahead, put_missing, run_missing, tidy
from atlas.tools.studies.snapshot import Snapshot
from atlas.tools.studies.study import Study, load_study

LOCK = Path(".ckpt/study.lock")


def list_studies(root: Path) -> None:
    """Prints the studies of a project, how many of their runs are done, and their questions."""
    table = Table("study", "done", "question", box=None, pad_edge=False, header_style="bold")
    done, snapshot = finished(root), Snapshot(root)
    for name in available(root):
        try:
            study = load_study(root, name, snapshot)
        except AtlasError as refusal:  # the others are listed all the same
            table.add_row(name, "refused", str(refusal))
            continue
        count = sum(run.name in done for run in study.runs)
        question = " ".join(study.plan.question.split())
        table.add_row(name, f"{count} of {len(study.runs)}", question)
    plain_console().print(table)


def write_study(root: Path, name: str) -> None:
    """Writes a study's table, picture and page from the runs that are there.

    Raises:
        AtlasError: the study is refused, or no run of it is done here.
    """
    study = load_study(root, name)
    if not _done(root, study):
        raise AtlasError(
            f"study {name}: no run of it as it is now is in this repository, and its page stays as "
            f"it is: `atlas study {name}` runs it"
        )
    with Repo(str(root)) as repo:
        _write(root, study, Queue(repo))


def run_study(root: Path, name: str) -> None:
    """Runs what is missing of a study, then writes its table, picture and page.

    Raises:
        AtlasError: the study is refused, another one runs here, or runs failed.
        Stopped: by Ctrl+C; the same command goes on.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    study = load_study(root, name)
    with _alone(root), Repo(str(root)) as repo:
        queue = Queue(repo)
        try:
            _run(root, study, queue)
        except (KeyboardInterrupt, AtlasError) as end:
            if done := _done(root, study):  # else the page stays as it is
                _write(root, study, queue)
            if isinstance(end, AtlasError):
                raise
            raise Stopped(
                f"stopped: {done} of {len(study.runs)} runs are done; `atlas study {name}` goes on"
            ) from None
        failed = [each.run.name for each in _write(root, study, queue) if each.state != "done"]
    if failed:
        raise AtlasError(
            f"{len(failed)} of {len(study.runs)} runs failed: {', '.join(failed)}; `dvc queue logs "
            f"{failed[0]}` shows why, `atlas study {name}` tries again"
        )


def _run(root: Path, study: Study, queue: Queue) -> None:
    tidy(root, queue, study)
    done = _done(root, study)
    print(f"{study.name}: {len(study.runs)} runs, {done} done", flush=True)
    if done == len(study.runs):
        return
    print("copies of the project are queued; then you can go on editing", flush=True)
    missing = put_missing(root, queue, study)
    if others := ahead(queue, missing):
        print(
            f"{len(others)} others are in DVC's queue and run too, the older ones first "
            f"(`dvc queue remove NAME` takes one out): {', '.join(others)}",
            flush=True,
        )
    print(
        f"{len(missing)} runs begin; `dvc queue logs NAME --follow` shows one, Ctrl+C ends them",
        flush=True,
    )
    progress = _Progress(len(study.runs), done)
    run_missing(root, queue, study, missing, progress.report)


def _done(root: Path, study: Study) -> int:
    there = finished(root)
    return sum(run.name in there for run in study.runs)


class _Progress:
    """A line for each run that ends, with its number, measures and seconds."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.ended, self.since = total, done, time.monotonic()

    def report(self, result: Result) -> None:
        now = time.monotonic()
        seconds, self.since = now - self.since, now
        self.ended += 1
        measured = ", ".join(
            f"{measure.split('.')[-1]} {value:.4g}" for measure, value in result.measures.items()
        )
        said = f"failed: {result.reason}" if result.state == "failed" else measured
        print(
            f"[{self.ended}/{self.total}] {result.run.name}: {said} ({seconds:.0f} s)", flush=True
        )


def _write(root: Path, study: Study, queue: Queue) -> list[Result]:
    from atlas.tools.studies.page import write_page  # pandas and matplotlib take a second

    found = results(root, study, queue.entries())
    print(f"{write_page(root, study, found)}: {study.name}'s table and picture", flush=True)
    return found


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keeps a second study from the queue.

    Raises:
        AtlasError: one runs.
    """
    lock = root / LOCK
    lock.parent.mkdir(exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise AtlasError(f"{LOCK}: a study runs here already; wait for it, or end it") from None
