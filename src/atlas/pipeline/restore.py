"""Undo what DVC leaves behind when a stage fails or DVC itself is killed.

DVC removes the outputs of a stage before it starts the stage's command, and leaves them removed if
the command fails. And ``dvc exp run`` detaches HEAD while it runs.
"""

import atexit
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType

import yaml

from atlas.errors import helps_another, one_line
from atlas.pipeline.processes import DVC, POLL_SECONDS, dvc_has_ended, stop_on_signals

LOCK = Path("dvc.lock")
COPIES = f"{os.sep}.dvc{os.sep}tmp{os.sep}exps{os.sep}"  # of the project, for dvc exp run --temp
IN_EXPERIMENT = "DVC_EXP_BASELINE_REV"  # set by dvc exp run
# Git's versions of a file; the first holds uncommitted edits while dvc exp run runs.
VERSIONS = ("refs/exps/exec/EXEC_MERGE", "HEAD", "")
DETACHED = re.compile(r"checkout: moving from (\S+) to [0-9a-f]{40}\n")
BACK = "the former outputs are back"


def guard_stage() -> None:
    """Clean up at exit, however the process ends; called before a stage imports anything.

    ``run_stage`` takes over if it is reached, and says in its one line that outputs are back.
    """
    name = os.environ.get(DVC)
    if name and f"stages.{name}" in sys.orig_argv:  # else started by hand, or a worker process
        stop_on_signals()
        sys.excepthook = partial(_print_error, name)
        atexit.register(clean_up_at_exit, name)


def clean_up(stage: str) -> str:
    """Restore outputs and HEAD after a failure; return a note for the user, or an empty string."""
    if os.environ.get(DVC) != stage or helps_another() or COPIES in str(Path.cwd()):
        return ""
    with without_signals():
        note = restore_outputs(stage)
        if IN_EXPERIMENT in os.environ:
            time.sleep(POLL_SECONDS)  # a signal to the whole group also ends DVC
            if dvc_has_ended():
                reattach_head()
    return note


def clean_up_at_exit(stage: str) -> None:
    """Clean up and print the note."""
    if note := clean_up(stage):
        print(note, file=sys.stderr)


def restore_outputs(stage: str) -> str:
    """Put back the missing outputs of a stage as dvc.lock lists them; return a note.

    Cached ones come from DVC's cache, the others from its run cache or from git.
    """
    try:
        lock = yaml.safe_load(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
        outs = lock.get("stages", {}).get(stage, {}).get("outs", [])
        if all(Path(out["path"]).exists() for out in outs):
            return ""
        from dvc.repo import Repo  # slow

        back: list[str] = []
        lost: list[str] = []
        with Repo() as repo:
            for out in repo.stage.load_one(name=stage).outs:
                if out.exists or not out.hash_info:
                    continue
                if out.use_cache and not out.changed_cache():
                    out.checkout()
                elif not out.use_cache:
                    _write_uncached(Path(out.fs_path), Path(out.cache_path), out.hash_info.value)
                (back if out.exists else lost).append(str(out))
    except Exception as error:  # nothing may hide why the stage failed
        reason = f"{type(error).__name__}: {one_line(error)}"
        return f"the former outputs are not back ({reason}): run `dvc checkout`"
    if not back:
        return ""
    return f"{BACK}, except {', '.join(lost)}: not in DVC's cache" if lost else BACK


def reattach_head() -> None:
    """Return to the branch that a killed ``dvc exp run`` left, as it does itself after Ctrl+C.

    Edits stay; what DVC has staged is unstaged.
    """
    if IN_EXPERIMENT not in os.environ or _git("symbolic-ref", "-q", "HEAD"):
        return
    moved = DETACHED.fullmatch(_git("log", "-g", "-1", "--format=%gs", "HEAD").decode())
    branch = f"refs/heads/{moved[1]}" if moved else ""
    if branch and _git("rev-parse", "-q", "--verify", branch):
        _git("symbolic-ref", "-m", "atlas: return from a killed experiment", "HEAD", branch)
        _git("reset", "-q")


@contextmanager
def without_signals() -> Iterator[None]:
    """Ignore Ctrl+C and SIGTERM for a moment."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _write_uncached(path: Path, cached: Path, md5: str) -> None:
    """Write an output with ``cache: false`` if its content, known by its hash, is found."""
    contents = [cached.read_bytes()] if cached.exists() else []
    relative = path.relative_to(Path.cwd()).as_posix()
    contents += [_git("show", f"{version}:./{relative}") for version in VERSIONS]
    for content in contents:
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            return


def _git(*arguments: str) -> bytes:
    """Run git; return its output, empty if it failed."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return b""


def _print_error(
    stage: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error that no stage has handled: Ctrl+C during imports is one line.

    Then clean up, because at exit DVC can't start the threads that it copies with any more.
    """
    if issubclass(kind, KeyboardInterrupt):
        print("stopped before the stage began", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
    clean_up_at_exit(stage)
