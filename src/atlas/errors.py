"""The one error a user is meant to read, and the one way in which a program ends with it."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
            print(one_line(error), file=sys.stderr)
            sys.exit(EXIT_STOPPED)
        print(f"error: {one_line(_explain(error))}", file=sys.stderr)
        sys.exit(EXIT_REFUSED)
    except KeyboardInterrupt:
        print("stopped: nothing half-written was kept", file=sys.stderr)
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
