"""The one error a user is meant to read, and the one way in which a program ends with it."""

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class AtlasError(Exception):
    """Something a user can mend.

    The message is one line: it names the key or the file, says what is wrong with it and
    what to do.
    """


class Stopped(AtlasError):  # noqa: N818 - no error: it was asked for
    """The user (or the system) asked the program to stop; what was done so far is kept."""


NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # what a full disk or quota says
EXIT_REFUSED = 1
EXIT_STOPPED = 130
SECONDS_FOR_THE_FIRST = 3.0
TORCHRUN = "TORCHELASTIC_RUN_ID"  # in the environment of what torchrun starts


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns an error into one line on standard error and an exit code that is not 0.

    ``ATLAS_DEBUG=1`` lets the traceback through.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get("ATLAS_DEBUG") == "1":
            raise
        if isinstance(error, Stopped):
            _end_stopped(one_line(error))
        if helps_another():
            _wait_for_the_first()
        print(f"error: {one_line(_explain(error))}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    except KeyboardInterrupt:
        _end_stopped("stopped: nothing half-written was kept")


def helps_another() -> bool:
    """Whether this is one of several processes that run one program, and not the first of them."""
    return TORCHRUN in os.environ and os.environ.get("RANK", "0") != "0"


def _end_stopped(why: str) -> NoReturn:
    if not helps_another():
        print(why, file=sys.stderr)
    sys.exit(EXIT_STOPPED)


def _wait_for_the_first() -> None:
    """Lets the first process say what is wrong with all.

    It ends with that, and so the others are ended; one that is not had a reason of its own.
    """
    try:
        time.sleep(SECONDS_FOR_THE_FIRST)
    except KeyboardInterrupt:
        sys.exit(EXIT_STOPPED)


def one_line(text: object) -> str:
    """A text with every run of blanks and line ends as one blank."""
    return " ".join(str(text).split())


def _explain(error: Exception) -> str:
    if isinstance(error, AtlasError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror} (nothing half-written was kept; mend it and run again)"
    kind = type(error).__name__
    return f"{kind}: {error} (this one is not expected: ATLAS_DEBUG=1 shows the traceback)"
