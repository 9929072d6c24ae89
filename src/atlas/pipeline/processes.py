"""Processes that end with their parent.

Otherwise a killed ``dvc repro`` would leave its stage running alongside the next one, and a killed
stage would leave its workers.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import psutil

from atlas import SPIN_COUNT
from atlas.errors import TORCHRUN, AtlasError

DVC = "DVC_STAGE"  # set in the environment of every command that DVC runs
POLL_SECONDS = 0.1
LLAMA_CPP_SPIN_COUNT = "1000"


def stop_on_signals() -> None:
    """Let SIGTERM and a closed terminal (SIGHUP) interrupt this process as Ctrl+C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # nohup ignores it
        signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))


def end_with_dvc(then: Callable[[], None]) -> None:
    """Stop this stage, as if by SIGTERM, when the DVC process that runs it has ended.

    ``then`` is called first. A stage started by hand keeps running. Under torchrun, each process
    ends with the launcher, which ends with DVC.
    """
    if TORCHRUN in os.environ:
        _end_with(psutil.Process().parent())  # of another session
    elif DVC in os.environ:
        _end_with(_dvc(), then)


def dvc_has_ended() -> bool:
    """True if DVC started this process and is gone."""
    return DVC in os.environ and TORCHRUN not in os.environ and _dvc() is None


def _dvc() -> psutil.Process | None:
    """Return the DVC process that runs this stage, None if it has ended.

    DVC starts a stage through a shell: most shells replace themselves with the stage, but dash
    (/bin/sh on Debian) stays between the two and outlives DVC.
    """
    shell = _parent(psutil.Process())
    return _parent(shell) if shell and _runs_this(shell) else shell


def end_with_parent() -> None:
    """Stop this process, as if by SIGTERM, when its parent has ended."""
    _end_with(_parent(psutil.Process()))


def _parent(process: psutil.Process) -> psutil.Process | None:
    """Return the parent of a process, None if it has ended.

    An orphan gets a new parent in another session, usually init.
    """
    try:
        parent = process.parent()
        if parent and os.name == "posix" and os.getsid(parent.pid) != os.getsid(process.pid):
            return None
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    return parent


def _runs_this(shell: psutil.Process) -> bool:
    """Return True if a process is ``sh -c "python -m stages.train"`` and this is that stage."""
    command = shell.cmdline()
    return "-c" in command and command[-1].endswith(" ".join(sys.orig_argv[1:]))


def _end_with(parent: psutil.Process | None, then: Callable[[], None] | None = None) -> None:
    if parent is None:
        raise AtlasError("the process that started this one has ended; run `dvc repro` again")

    def watch() -> None:
        while _is_alive(parent):
            time.sleep(POLL_SECONDS)
        if then:
            then()
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=watch, daemon=True).start()


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextmanager
def loading_llama_cpp() -> Iterator[None]:
    """Let the threads of llama.cpp's own libgomp, loaded in the block, wait more briefly.

    Beside two busy processes it is 20 times slower with the spin count that suits PyTorch
    (docs/experiments.md). A count that the user set stays.
    """
    if os.environ.get("GOMP_SPINCOUNT") != SPIN_COUNT:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = LLAMA_CPP_SPIN_COUNT
    try:
        yield
    finally:
        os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT


def threads() -> int:
    """Return the number of threads for other runtimes, the same as PyTorch's.

    That is ``OMP_NUM_THREADS``, or one per core. llama.cpp's default of four is slow on two cores.
    """
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdecimal() and int(value) else os.cpu_count() or 1
