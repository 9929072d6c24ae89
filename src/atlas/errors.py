"""The error that users read, how programs end with it, and how warnings reach them."""

import difflib
import errno
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class AtlasError(Exception):
    """An error the user can fix, in one line: the key or file, what is wrong, and what to do."""


class Stopped(AtlasError):  # noqa: N818 - not a failure
    """The user or the system stopped the program; what was done so far is kept."""


class NotWritten(AtlasError):  # noqa: N818 - a state, as Stopped
    """A file could not be written, most likely because the disk is full."""

    def __init__(self, what: object, reason: object) -> None:
        super().__init__(f"{what}: not written ({reason}); free some space and run again")


# What moves the cursor, changes the terminal or turns text around; line end and tab stay.
CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # disk or quota full
EXIT_REFUSED, EXIT_STOPPED = 1, 130
SECONDS_FOR_THE_FIRST = 3.0
TORCHRUN = "TORCHELASTIC_RUN_ID"  # environment variable set by torchrun


class LineHandler(logging.Handler):
    """Prints each log message as one line on stderr: ``warning: ...``, info without a prefix."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message."""
        prefix = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        print(f"{prefix}{escape_controls(self.format(record))}", file=sys.stderr)


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

    Notes on the error (PEP 678) follow its message. ``ATLAS_DEBUG=1`` shows the traceback.
    """
    configure_logging()
    try:
        yield
        return
    except (Exception, KeyboardInterrupt) as error:
        code = EXIT_STOPPED if isinstance(error, Stopped | KeyboardInterrupt) else EXIT_REFUSED
        if code == EXIT_REFUSED and os.environ.get("ATLAS_DEBUG") == "1":
            raise
        message = "; ".join([_explain(error), *getattr(error, "__notes__", [])])
    if helps_another():
        # Rank 0 reports an error that all ranks share, and torchrun then ends the others. A rank
        # that is still here failed for a reason of its own.
        try:
            time.sleep(SECONDS_FOR_THE_FIRST if code == EXIT_REFUSED else 0)
        except KeyboardInterrupt:
            code = EXIT_STOPPED
        if code == EXIT_STOPPED:
            sys.exit(code)
    print(escape_controls(one_line(message)), file=sys.stderr)
    sys.exit(code)


def helps_another() -> bool:
    """True if torchrun started this process and its rank is not 0."""
    return TORCHRUN in os.environ and os.environ.get("RANK", "0") != "0"


def one_line(text: object) -> str:
    """Replace every run of whitespace by one space."""
    return " ".join(str(text).split())


def escape_controls(text: str) -> str:
    """Show control characters as Python escapes, since a terminal would obey them."""
    return CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def did_you_mean(name: str, known: Iterable[str], prefix: str = "", cutoff: float = 0.6) -> str:
    """Return ``: did you mean X?`` if one of the known names is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f": did you mean {prefix}{close[0]}?" if close else ""


def _explain(error: Exception | KeyboardInterrupt) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "stopped: nothing half-written was kept"
    if isinstance(error, Stopped):
        return str(error)
    if isinstance(error, AtlasError):
        return f"error: {error}"
    if isinstance(error, OSError) and error.strerror:
        file = f"{error.filename}: " if error.filename else ""
        advice = "nothing half-written was kept; fix it and run again"
        return f"error: {file}{error.strerror} ({advice})"
    return f"error: {type(error).__name__}: {error} (unexpected: ATLAS_DEBUG=1 shows the traceback)"
