"""Processes that end with the one that started them.

A killed ``dvc repro`` would otherwise leave a stage running beside the next one, and a killed
stage its workers.
"""

import os
import signal
import sys
import time
from threading import Thread

import psutil

from atlas.errors import TORCHRUN, AtlasError

DVC = "DVC_STAGE"  # in the environment of what DVC runs
SECONDS_BETWEEN_LOOKS = 0.1


def end_with_dvc() -> None:
    """Has this stage stopped, as by SIGTERM, when the DVC that runs it is gone.

    A stage that was started by hand is left alone. DVC starts one through a shell: most shells
    become the stage, but dash (/bin/sh on Debian) stays between the two, and outlives DVC. One of
    several processes of a stage ends with their launcher, which ends with DVC.

    Raises:
        AtlasError: DVC is gone already.
    """
    if TORCHRUN in os.environ:
        _end_with(psutil.Process().parent())  # of another session
    elif DVC in os.environ:
        shell = _parent(psutil.Process())
        _end_with(_parent(shell) if shell and _runs_this(shell) else shell)


def end_with_parent() -> None:
    """Has this process stopped, as by SIGTERM, when the one that started it is gone.

    Raises:
        AtlasError: it is gone already.
    """
    _end_with(_parent(psutil.Process()))


def _parent(process: psutil.Process) -> psutil.Process | None:
    """What started a process, None if it is gone.

    Who has lost his parent is given one of another session, mostly init.
    """
    try:
        parent = process.parent()
        if parent and os.name == "posix" and os.getsid(parent.pid) != os.getsid(process.pid):
            return None
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    return parent


def _runs_this(shell: psutil.Process) -> bool:
    """Whether a process is ``sh -c "python -m stages.train"``, seen from the stage train."""
    command = shell.cmdline()
    return "-c" in command and command[-1].endswith(" ".join(sys.orig_argv[1:]))


def _end_with(starter: psutil.Process | None) -> None:
    if starter is None:
        raise AtlasError("what started this process is gone; run `dvc repro` again")

    def look() -> None:
        while _lives(starter):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=look, daemon=True).start()


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def threads() -> int:
    """How many a runtime beside PyTorch uses: as that does, ``OMP_NUM_THREADS`` or a core each.

    llama.cpp's own four would wait for each other on fewer cores.
    """
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdecimal() and int(value) else os.cpu_count() or 1
