"""One file over HTTP: resumed where it broke off, tried again, refused if it cannot be right.

Everything received goes to a part file, which stays when the connection breaks or the program
ends, so that a later try, or a later run, goes on from there.
"""

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from atlas.corpora.registry import Download
from atlas.errors import one_line

TRIES = 4
FIRST_PAUSE = 1.0  # seconds before the second try; doubled before each further one
LONGEST_PAUSE = 120.0  # seconds that a server may ask to wait
SLOW_WINDOW = 30.0  # seconds over which the speed is taken
SLOW_RATE = 1000.0  # bytes a second below which a server counts as stuck
LARGEST = 50_000_000_000  # bytes of a file whose size is not known beforehand
GZIP_OVERHEAD = 1000  # bytes by which a gzipped copy may be longer than the file itself
GZIP = b"\x1f\x8b"
BUSY = {408, 425, 429}  # besides every 5xx: the same request may succeed later
WEB_PAGE = ("text/html", "application/xhtml+xml")


class Refused(Exception):  # noqa: N818 - an answer, and not always an error
    """A place does not give the file; the message says why."""


class Absent(Refused):
    """A place has no such file."""


class AnotherFile(Refused):
    """A place gives something, and it is not the file."""


class _Again(Exception):  # noqa: N818
    """This try failed, another one may succeed after a pause of at least so many seconds."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause


@dataclass
class Meter:
    """A file's share in the one progress bar of all files."""

    bar: "tqdm[Any]"
    expected: int
    received: int = 0

    def expect(self, total: int) -> None:
        """Says how many bytes the file will have."""
        self.bar.total = (self.bar.total or 0) + total - self.expected
        self.expected = total

    def at(self, received: int) -> None:
        """Says how many bytes of the file are there; fewer than before after a restart."""
        self.bar.update(received - self.received)
        self.received = received


@dataclass(frozen=True)
class Part:
    """The beginning of a file, and beside it what its server calls this version of it."""

    path: Path

    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> str:
        """The ETag or date of what was received; empty if the server gave none."""
        path = self._version_path()
        return path.read_text(encoding="latin-1") if path.exists() else ""

    def remember(self, answer: httpx.Response) -> None:
        """Keeps the version of what is about to be received; a weak ETag promises no bytes."""
        etag = answer.headers.get("ETag", "")
        version = etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")
        self._version_path().write_text(version, encoding="latin-1", errors="replace")

    def drop(self) -> None:
        """Forgets everything."""
        self.path.unlink(missing_ok=True)
        self._version_path().unlink(missing_ok=True)

    def _version_path(self) -> Path:
        return self.path.with_suffix(".version")


async def transfer(
    client: httpx.AsyncClient, url: str, file: Download, part: Part, meter: Meter
) -> bool:
    """Receives the file at ``url`` into ``part``, in up to TRIES tries.

    Returns:
        Whether it was put together from several answers.

    Raises:
        Absent: there is no such file.
        Refused: the server cannot be reached, is too slow, or sends something else.
    """
    for attempt in range(TRIES):
        resumed = part.size() > 0
        try:
            await _receive(client, url, file, part, meter)
            return resumed
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise Refused(f"cannot be reached: {_reason(error)}") from None
        except httpx.TransportError as error:
            failure = _Again(f"broke off: {_reason(error)}")
        except _Again as error:
            failure = error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Refused(_reason(error)) from None
        if failure.pause > LONGEST_PAUSE:
            raise Refused(f"{failure} and asks for {failure.pause:.0f} s of patience: come later")
        if attempt < TRIES - 1:
            await _pause(max(failure.pause, FIRST_PAUSE * 2**attempt))
    raise Refused(f"{failure} (tried {TRIES} times)")


async def _receive(
    client: httpx.AsyncClient, url: str, file: Download, part: Part, meter: Meter
) -> None:
    """Appends to ``part`` what it lacks, from one answer."""
    if part.size() and not (file.sha256 or part.version()):
        part.drop()  # nothing could tell whether the rest belongs to it
    have = part.size()
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if part.version():
            headers["If-Range"] = part.version()
    async with client.stream("GET", url, headers=headers) as answer:
        if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if answer.headers.get("Content-Range") == f"bytes */{have}":
                return  # it is whole
            part.drop()
            raise _Again("has another length than what was received")
        _check(answer, file)
        resumes = answer.status_code == httpx.codes.PARTIAL_CONTENT
        span = answer.headers.get("Content-Range", f"bytes {have}-")
        if resumes and not span.startswith(f"bytes {have}-"):
            part.drop()
            raise _Again("answered with another range than was asked for")
        if not resumes:
            have = 0
            part.remember(answer)
        rest = answer.headers.get("Content-Length", "")
        if rest.isdecimal():
            _check_size(have + int(rest), file, part)
            meter.expect(have + int(rest))
        with part.path.open("ab" if resumes else "wb") as out:
            meter.at(have)
            since, in_window = time.monotonic(), 0
            async for chunk in answer.aiter_raw():
                out.write(chunk)
                have += len(chunk)
                _check_size(have, file, part)
                meter.at(have)
                in_window += len(chunk)
                seconds = time.monotonic() - since
                if seconds >= SLOW_WINDOW:
                    if in_window < SLOW_RATE * seconds:
                        raise _Again(f"too slow: {in_window / seconds:.0f} bytes a second")
                    since, in_window = time.monotonic(), 0
    # An answer that announces no length ends as a broken one does.
    announced = "Content-Length" in answer.headers or "Transfer-Encoding" in answer.headers
    if not announced and have < (file.bytes or 0) and not is_packed(part.path):
        raise _Again(f"broke off after {have} of {file.bytes} bytes")


def is_packed(path: Path) -> bool:
    """Whether a file is gzipped, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(GZIP)) == GZIP


def _check(answer: httpx.Response, file: Download) -> None:
    """Refuses an answer that cannot hold the file, before any of it is read."""
    status = answer.status_code
    said = f"{status} {answer.reason_phrase}".strip()
    if status in (404, 410):
        raise Absent(said)
    if status >= 500 or status in BUSY:
        raise _Again(f"answers {said}", _asked_pause(answer))
    if not answer.is_success:
        raise Refused(f"answers {said}")
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not file.sha256 and kind in WEB_PAGE and not expects_web_page(file):
        led = f" (it led to {answer.url})" if answer.history else ""
        raise AnotherFile(f"sends a web page and no text{led}: a login or error page?")
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):  # gzip is known by its first bytes
        raise Refused(f"sends it encoded as {encoding}, which was not asked for")


def expects_web_page(file: Download) -> bool:
    """Whether a file may be HTML."""
    return file.name.lower().endswith((".html", ".htm"))


def _check_size(size: int, file: Download, part: Part) -> None:
    overhead = 0 if file.bytes is None else GZIP_OVERHEAD
    if size > size_limit(file) + overhead:
        part.drop()
        raise AnotherFile(f"sends more than the {size_limit(file)} bytes that it may have")


def size_limit(file: Download) -> int:
    """How many bytes a file may have."""
    return LARGEST if file.bytes is None else file.bytes


def _asked_pause(answer: httpx.Response) -> float:
    """Seconds that the server asks to wait, by number or by date."""
    asked = answer.headers.get("Retry-After", "")
    if asked.isdecimal():
        return float(asked)
    try:
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
