"""The error that users read, how programs end with it, and how warnings reach them."""

import errno
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class AtlasError(Exception):
    """An error that the user can fix.

    The message is one line: the key or file, what is wrong with it, and what to do.
    """


class Stopped(AtlasError):  # noqa: N818 - not a failure
    """The user or the system stopped the program; what was done so far is kept."""


NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # disk or quota full
EXIT_REFUSED = 1
EXIT_STOPPED = 130
SECONDS_FOR_THE_FIRST = 3.0
TORCHRUN = "TORCHELASTIC_RUN_ID"  # environment variable set by torchrun


class LineHandler(logging.Handler):
    """Prints each log message as one line on stderr: ``warning: ...``, info without a prefix."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        print(f"{prefix}{self.format(record)}", file=sys.stderr)


def configure_logging() -> None:
    """Show our messages from level INFO on, those of libraries from WARNING on."""
    root = logging.getLogger()
    if not any(isinstance(handler, LineHandler) for handler in root.handlers):
        root.addHandler(LineHandler())
    for name in ("atlas", "stages", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line on stderr instead of a traceback; show log messages there.

    ``ATLAS_DEBUG=1`` shows the traceback.
    """
    configure_logging()
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
    """True if torchrun started this process and its rank is not 0."""
    return TORCHRUN in os.environ and os.environ.get("RANK", "0") != "0"


def _end_stopped(why: str) -> NoReturn:
    if not helps_another():
        print(why, file=sys.stderr)
    sys.exit(EXIT_STOPPED)


def _wait_for_the_first() -> None:
    """Give rank 0 time to report an error that all ranks share.

    torchrun then ends the others. A rank that is still here failed for a reason of its own.
    """
    try:
        time.sleep(SECONDS_FOR_THE_FIRST)
    except KeyboardInterrupt:
        sys.exit(EXIT_STOPPED)


def one_line(text: object) -> str:
    """Replace every run of whitespace by one space."""
    return " ".join(str(text).split())


def _explain(error: Exception) -> str:
    if isinstance(error, AtlasError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror} (nothing half-written was kept; mend it and run again)"
    kind = type(error).__name__
    return f"{kind}: {error} (this one is not expected: ATLAS_DEBUG=1 shows the traceback)"
