"""What a process asks of the system."""

import ctypes
import signal
import sys


def end_with_parent() -> None:
    """Asks Linux to end this process when the one that started it is gone.

    A killed ``dvc repro`` would otherwise leave a stage running beside the next one, and a
    killed stage its workers.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
