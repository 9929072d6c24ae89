"""What DVC's queue knows of experiments, and what is done with them there."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import yaml
from dvc.repo import Repo
from dvc.repo.experiments.executor.base import ExecutorInfo

from atlas.errors import AtlasError, one_line
from atlas.params.schema import Params
from atlas.pipeline.files import remove
from atlas.tools.studies.study import Run
from atlas.tools.studies.worker import interrupt_children

TIMES_TO_QUEUE = 3
SECONDS_OF_A_TIMESTAMP = 1.1  # git sees an edit of equal length only in another second
WORKERS = {"queue-worker", "atlas.tools.studies.worker"}  # in the command lines of workers
PARTS_OF_A_REF = 5  # refs/exps/ab/cdef.../name
State = Literal["queued", "running", "failed"]


@dataclass(frozen=True)
class Entry:
    """An experiment in the queue.

    Attributes:
        rev: the commit that holds its copy of the project.
        log: what it printed, if it was started.
        pid: of the DVC that runs it, or ran it.
    """

    name: str
    rev: str
    state: State
    log: Path | None = None
    pid: int | None = None


class Queue:
    """DVC's queue of a project."""

    def __init__(self, repo: Repo) -> None:
        self._repo = repo
        self._queue = repo.experiments.celery_queue

    def entries(self) -> list[Entry]:
        """What is queued, runs, or has failed and was not removed since."""
        queued = [self._entry(each, "queued") for each in self._queue.iter_queued()]
        running = [self._entry(each, "running") for each in self._queue.iter_active()]
        failed = [self._entry(each, "failed") for each, _ in self._queue.iter_failed()]
        return queued + running + failed

    def _entry(self, entry: object, state: State) -> Entry:
        name, rev = entry.name or "", entry.stash_rev  # type: ignore[attr-defined]
        process = self._queue.proc.get(rev)
        if process is None:
            return Entry(name, rev, state)
        return Entry(name, rev, state, Path(process.stdout or ""), process.pid)

    def put(self, run: Run) -> None:
        """Queues a run: a copy of the project as it is now, with the run's params.

        Raises:
            AtlasError: DVC refuses, or queued other params than it was given.
        """
        command = ["exp", "run", "--queue", "--name", run.name]
        command += [part for override in run.overrides for part in ("-S", override)]
        for _ in range(TIMES_TO_QUEUE):
            _dvc(self._repo.root_dir, command)
            (entry,) = (each for each in self.entries() if each.name == run.name)
            if _params_of(self._repo.root_dir, entry.rev) == run.params:
                return
            self.remove([entry])
            time.sleep(SECONDS_OF_A_TIMESTAMP)
        raise AtlasError(f"{run.name}: DVC does not queue it with its params; is git sound here?")

    def folders_not_cached(self) -> list[str]:
        """Folders of dvc.lock that are not in DVC's cache; without them its experiments fail."""
        return [
            str(out)
            for out in self._repo.index.outs
            if out.hash_info.isdir and not out.cache.exists(out.hash_info.value)
        ]

    def remove(self, entries: Iterable[Entry]) -> None:
        """Takes entries out of the queue, also those that run no more but are said to run."""
        for entry in entries:
            if entry.state == "running":
                self._give_up(entry)
            self._queue.remove([entry.rev])
            if entry.rev in {each.rev for each in self.entries()}:
                self._queue.remove([entry.rev])  # first as queued, then as failed

    def _give_up(self, entry: Entry) -> None:
        """Has DVC know that an entry runs no more, and removes the copy that it ran in."""
        process = self._queue.proc.get(entry.rev)
        if process is not None and process.returncode is None:
            process.returncode = -1  # its number may be another process's by now
            self._queue.proc[entry.rev] = process
        self._queue.kill([entry.rev])
        with suppress(FileNotFoundError):
            copy = Path(ExecutorInfo.load_json(self._queue.get_infofile_path(entry.rev)).root_dir)
            if Path(self._repo.tmp_dir or "") in copy.parents:
                remove(copy)


def is_run(entry: Entry) -> bool:
    """Whether an entry is run by a worker; what a killed worker left behind is ended."""
    if entry.pid is None:
        return False
    try:
        process = psutil.Process(entry.pid)
        if "exec-run" not in process.cmdline():
            return False
        parent = process.parent()
        if parent is not None and WORKERS & set(parent.cmdline()):
            return True
        process.send_signal(signal.SIGINT)
        interrupt_children(process)
    except psutil.NoSuchProcess:
        pass
    return False


def finished(root: Path) -> dict[str, str]:
    """The experiments of a project that have results, each with its git reference."""
    listed = _git(root, "for-each-ref", "--format=%(refname)", "refs/exps")
    parts = [ref.split("/") for ref in listed.splitlines()]
    return {each[-1]: "/".join(each) for each in parts if len(each) == PARTS_OF_A_REF}


def file_in(root: Path, revision: str, path: str) -> str | None:
    """A text file as it is in a commit, None if it is not in it."""
    try:
        return _git(root, "show", f"{revision}:./{path}")
    except AtlasError:
        return None


def environment() -> dict[str, str]:
    """The environment of DVC and the stages: they find this Python, also if it is not active."""
    here = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _params_of(root: str, revision: str) -> Params:
    text = file_in(Path(root), revision, "params.yaml") or ""
    return Params.from_mapping(yaml.safe_load(text), f"params.yaml of {revision[:7]}")


def _dvc(root: str, arguments: list[str]) -> None:
    """Runs DVC to its end, also through Ctrl+C: it puts the user's changes aside for a moment.

    Raises:
        AtlasError: DVC refuses.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=root,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    try:
        printed = process.communicate()[0]
    except KeyboardInterrupt:
        process.communicate()
        raise
    if process.returncode:
        raise AtlasError(f"dvc {' '.join(arguments[:2])}: {one_line(printed)}")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise AtlasError(f"git {arguments[0]}: {one_line(done.stderr)}")
    return done.stdout
