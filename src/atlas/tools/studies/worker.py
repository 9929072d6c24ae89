"""A worker of DVC's queue that ends with the one that started it.

The worker of ``dvc queue start`` is nobody's child: it goes on when its starter is interrupted or
killed. This one runs the same queue as a child, and ends when its standard input is closed, which
also happens when its starter dies in whatever way. It then takes no more experiments (asked to
shut down in any other way, DVC's worker takes one more out of the queue and loses it), and the
experiment that runs is interrupted as by Ctrl+C: train writes a checkpoint.

    python -m atlas.tools.studies.worker    (as `atlas study` starts it)
"""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread

import psutil
from dvc.repo import Repo
from dvc.repo.experiments.queue.celery import LocalCeleryQueue
from filelock import FileLock

NODE = "atlas-study@localhost"
LOCK = Path(".ckpt/study-worker.lock")
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_FOR_A_REPLY = 2.0


def main() -> None:
    """Runs what is queued, until nothing is or standard input is closed."""
    LOCK.parent.mkdir(exist_ok=True)
    with FileLock(LOCK), Repo() as repo:  # one that was left alone needs seconds to end
        queue = repo.experiments.celery_queue
        Thread(target=_end_when_asked, args=(queue,), daemon=True).start()
        queue.worker.start(NODE, fsapp_clean=True)


def _end_when_asked(queue: LocalCeleryQueue) -> None:
    while os.read(sys.stdin.fileno(), 1):  # nothing when the other end is closed
        pass
    consumed = queue.celery.conf.task_default_queue
    control = queue.celery.control
    while not control.cancel_consumer(
        consumed, destination=[NODE], reply=True, timeout=SECONDS_FOR_A_REPLY
    ):
        pass  # the worker has not come up yet
    os.kill(os.getpid(), signal.SIGTERM)
    interrupt_children(psutil.Process())


def interrupt_children(process: psutil.Process) -> None:
    """Interrupts what a process started, and what that starts yet, until it is gone itself."""
    interrupted: set[psutil.Process] = set()
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            for child in set(process.children(recursive=True)) - interrupted:
                interrupted.add(child)
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGINT)
            time.sleep(SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    main()
