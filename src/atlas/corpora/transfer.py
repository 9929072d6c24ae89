"""Download one file over HTTP: resume after interruptions, retry, reject what can't be the file.

Data goes to a partial file that survives broken connections and the end of the program, so a
later try, or a later run, continues from there.
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
FIRST_PAUSE = 1.0  # seconds before the second try, doubled before each further one
MAX_PAUSE = 120.0  # seconds; longer waits requested by a server end the download
SPEED_WINDOW = 30.0  # seconds over which the speed is measured
MIN_SPEED = 1000.0  # bytes per second
MAX_BYTES = 50_000_000_000  # of a file of unknown size
GZIP_OVERHEAD = 1000  # bytes by which a gzipped copy can exceed the file itself
GZIP_MAGIC = b"\x1f\x8b"
RETRY_STATUS = {408, 425, 429}  # and every 5xx
WEB_PAGE = ("text/html", "application/xhtml+xml")


class SourceError(Exception):
    """A source can't provide the file; the message says why."""


class FileMissingError(SourceError):
    """A source has no such file."""


class WrongFileError(SourceError):
    """A source provides something else than the file."""


class _RetryError(Exception):
    """A try failed, but another can succeed after a pause of at least ``pause`` seconds."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause


@dataclass
class FileProgress:
    """The share of one file in the progress bar of all files."""

    bar: "tqdm[Any]"
    expected: int
    received: int = 0

    def expect(self, total: int) -> None:
        """Correct the expected size of the file in bytes."""
        self.bar.total = (self.bar.total or 0) + total - self.expected
        self.expected = total

    def update(self, received: int) -> None:
        """Set the bytes received so far, fewer than before after a restart."""
        self.bar.update(received - self.received)
        self.received = received


@dataclass(frozen=True)
class PartialFile:
    """The start of a file, and next to it the version that the server reported."""

    path: Path

    def size(self) -> int:
        """Return the bytes received so far."""
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> str:
        """Return the ETag or modification date of the received bytes, empty if unknown."""
        path = self._version_path()
        return path.read_text(encoding="latin-1") if path.exists() else ""

    def save_version(self, response: httpx.Response) -> None:
        """Save the version of a response; a weak ETag doesn't guarantee equal bytes."""
        etag = response.headers.get("ETag", "")
        version = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        self._version_path().write_text(version, encoding="latin-1", errors="replace")

    def remove(self) -> None:
        """Remove the file and its version."""
        self.path.unlink(missing_ok=True)
        self._version_path().unlink(missing_ok=True)

    def _version_path(self) -> Path:
        return self.path.with_suffix(".version")


async def transfer(
    client: httpx.AsyncClient,
    url: str,
    file: Download,
    partial: PartialFile,
    progress: FileProgress,
) -> bool:
    """Download the file at ``url`` into ``partial`` in up to TRIES tries."""
    for attempt in range(TRIES):
        resumed = partial.size() > 0
        try:
            await _receive(client, url, file, partial, progress)
            return resumed
        except (httpx.ConnectError, httpx.UnsupportedProtocol) as error:
            raise SourceError(f"can't be reached: {_reason(error)}") from None
        except httpx.TransportError as error:
            failure = _RetryError(f"broke off: {_reason(error)}")
        except _RetryError as error:
            failure = error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SourceError(_reason(error)) from None
        if failure.pause > MAX_PAUSE:
            raise SourceError(f"{failure} and asks to wait {failure.pause:.0f} s: try again later")
        if attempt < TRIES - 1:
            await _pause(max(failure.pause, FIRST_PAUSE * 2**attempt))
    raise SourceError(f"{failure} (tried {TRIES} times)")


async def _receive(
    client: httpx.AsyncClient,
    url: str,
    file: Download,
    partial: PartialFile,
    progress: FileProgress,
) -> None:
    """Append the missing bytes to ``partial`` from one response."""
    if partial.size() and not (file.sha256 or partial.version()):
        partial.remove()  # the rest could belong to another version
    have = partial.size()
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if partial.version():
            headers["If-Range"] = partial.version()
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # it is complete
            partial.remove()
            raise _RetryError("has another length than the received part")
        _check(response, file)
        resumes = response.status_code == httpx.codes.PARTIAL_CONTENT
        span = response.headers.get("Content-Range", f"bytes {have}-")
        if resumes and not span.startswith(f"bytes {have}-"):
            partial.remove()
            raise _RetryError("returned another range than requested")
        if not resumes:
            have = 0
            partial.save_version(response)
        length = response.headers.get("Content-Length", "")
        if length.isdecimal():
            _check_size(have + int(length), file, partial)
            progress.expect(have + int(length))
        with partial.path.open("ab" if resumes else "wb") as out:
            progress.update(have)
            since, in_window = time.monotonic(), 0
            async for chunk in response.aiter_raw():
                out.write(chunk)
                have += len(chunk)
                _check_size(have, file, partial)
                progress.update(have)
                in_window += len(chunk)
                seconds = time.monotonic() - since
                if seconds >= SPEED_WINDOW:
                    if in_window < MIN_SPEED * seconds:
                        raise _RetryError(f"too slow: {in_window / seconds:.0f} bytes per second")
                    since, in_window = time.monotonic(), 0
    # Without an announced length, a broken connection looks like the end of the file.
    announced = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
    if not announced and have < (file.bytes or 0) and not is_gzipped(partial.path):
        raise _RetryError(f"broke off after {have} of {file.bytes} bytes")


def is_gzipped(path: Path) -> bool:
    """Check the first bytes of a file for gzip."""
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _check(response: httpx.Response, file: Download) -> None:
    """Reject a response that can't be the file, before its body is read."""
    status = response.status_code
    description = f"returned {status} {response.reason_phrase}".strip()
    if status in (404, 410):
        raise FileMissingError(description)
    if status >= 500 or status in RETRY_STATUS:
        raise _RetryError(description, _requested_pause(response))
    if not response.is_success:
        raise SourceError(description)
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if not file.sha256 and kind in WEB_PAGE and not expects_web_page(file):
        target = f" (redirected to {response.url})" if response.history else ""
        raise WrongFileError(f"sends a web page instead of text{target}: a login or error page?")
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):  # gzip is detected by its first bytes
        raise SourceError(f"sends it encoded as {encoding}, which was not requested")


def expects_web_page(file: Download) -> bool:
    """Check by its name if a file can be HTML."""
    return file.name.lower().endswith((".html", ".htm"))


def _check_size(size: int, file: Download, partial: PartialFile) -> None:
    overhead = 0 if file.bytes is None else GZIP_OVERHEAD
    if size > size_limit(file) + overhead:
        partial.remove()
        raise WrongFileError(f"sends more than the {size_limit(file)} bytes allowed")


def size_limit(file: Download) -> int:
    """Return the maximum size of a file in bytes."""
    return MAX_BYTES if file.bytes is None else file.bytes


def _requested_pause(response: httpx.Response) -> float:
    """Return the seconds to wait from Retry-After, a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
