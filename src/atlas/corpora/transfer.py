"""Get one file from a path or over HTTP: resume, retry, reject wrong content.

Data goes to a partial file that survives broken connections and the end of the program, so a
later try, or a later run, continues from there.
"""

import asyncio
import gzip
import hashlib
import shutil
import time
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

from atlas.corpora.registry import Download
from atlas.errors import NO_ROOM, one_line
from atlas.pipeline.files import sha256

CHUNK = 2**20  # bytes
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
    """A source provides something other than the file."""


class _RetryError(Exception):
    """An attempt failed, but the next may succeed after at least ``pause`` seconds."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause


class _PartialFile:
    """The start of a file, and next to it the version that the server reported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = path.with_suffix(".version")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self) -> str:
        """Return the ETag or modification date of the received bytes, empty if unknown."""
        return self._version.read_text(encoding="latin-1") if self._version.exists() else ""

    def save_version(self, response: httpx.Response) -> None:
        """Save the version of a response; a weak ETag doesn't guarantee equal bytes."""
        etag = response.headers.get("ETag", "")
        version = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        self._version.write_text(version, encoding="latin-1", errors="replace")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)


@dataclass
class Transfer:
    """The transfer of one file to ``complete``; updates the progress bar of all files."""

    client: httpx.AsyncClient
    file: Download
    complete: Path
    bar: "tqdm[Any]"
    received: int = 0

    def __post_init__(self) -> None:
        self._expected = self.file.bytes or 0

    def expect(self, total: int) -> None:
        """Correct the expected size of the file in bytes."""
        self.bar.total = (self.bar.total or 0) + total - self._expected
        self._expected = total

    def update(self, received: int) -> None:
        """Set the bytes received so far, fewer than before after a restart."""
        self.bar.update(received - self.received)
        self.received = received

    def finish(self, path: Path) -> None:
        """Count a file that was copied in one go."""
        self.expect(path.stat().st_size)
        self.update(path.stat().st_size)

    async def fetch(self, location: str) -> None:
        """Fetch the file from one location, or raise a SourceError if it isn't the right one."""
        if not is_url(location):
            copy = self.complete.with_suffix(".copy")
            await asyncio.to_thread(_copy, Path(location), copy)
            self.finish(copy)
            await asyncio.to_thread(_accept, copy, self.file, self.complete)
            return
        key = hashlib.sha256(f"{location} {self.file.sha256}".encode()).hexdigest()[:16]
        partial = _PartialFile(self.complete.with_name(f"{key}.part"))
        resumed = await self._download(location, partial)
        try:
            await asyncio.to_thread(_accept, partial.path, self.file, self.complete)
        except WrongFileError:
            if not resumed:
                raise
            # The resumed part can be from another version, so start once more.
            await self._download(location, partial)
            await asyncio.to_thread(_accept, partial.path, self.file, self.complete)

    async def _download(self, url: str, partial: _PartialFile) -> bool:
        """Download in up to TRIES tries; return True if the last one resumed an earlier one."""
        for attempt in range(TRIES):
            resumed = partial.size() > 0
            try:
                await self._receive(url, partial)
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
                raise SourceError(
                    f"{failure} and asks to wait {failure.pause:.0f} s: try again later"
                )
            if attempt < TRIES - 1:
                await _pause(max(failure.pause, FIRST_PAUSE * 2**attempt))
        raise SourceError(f"{failure} (tried {TRIES} times)")

    async def _receive(self, url: str, partial: _PartialFile) -> None:
        """Append the missing bytes to ``partial`` from one response."""
        file = self.file
        if partial.size() and not (file.sha256 or partial.version()):
            partial.remove()  # the rest could belong to another version
        have = partial.size()
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if partial.version():
                headers["If-Range"] = partial.version()
        async with self.client.stream("GET", url, headers=headers) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                if response.headers.get("Content-Range") == f"bytes */{have}":
                    return  # it is complete
                partial.remove()
                raise _RetryError("has another length than the received part")
            _check_response(response, file)
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
                self.expect(have + int(length))
            with partial.path.open("ab" if resumes else "wb") as out:
                self.update(have)
                since, in_window = time.monotonic(), 0
                async for chunk in response.aiter_raw():
                    out.write(chunk)
                    have += len(chunk)
                    _check_size(have, file, partial)
                    self.update(have)
                    in_window += len(chunk)
                    seconds = time.monotonic() - since
                    if seconds >= SPEED_WINDOW:
                        speed = in_window / seconds
                        if speed < MIN_SPEED:
                            raise _RetryError(f"too slow: {speed:.0f} bytes per second")
                        since, in_window = time.monotonic(), 0
        # Without an announced length, a broken connection looks like the end of the file.
        announced = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        if not announced and have < (file.bytes or 0) and not _is_gzipped(partial.path):
            raise _RetryError(f"broke off after {have} of {file.bytes} bytes")


def is_url(location: str) -> bool:
    """Tell URLs from paths."""
    return urlsplit(location).scheme.lower() in ("http", "https")


def _copy(location: Path, copy: Path) -> None:
    try:
        shutil.copyfile(location, copy)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise SourceError(f"can't be read: {error.strerror}") from None


def _accept(received: Path, file: Download, complete: Path) -> None:
    """Unpack the gzip around a received file, verify it and move it to ``complete``."""
    try:
        if _is_gzipped(received) and not file.name.lower().endswith(".gz"):
            _unpack(received, _size_limit(file))
        _check_content(received, file)
        received.replace(complete)
    finally:
        received.unlink(missing_ok=True)


def _unpack(packed: Path, limit: int) -> None:
    """Replace a gzipped file by its content, at most ``limit`` bytes."""
    unpacked = packed.with_suffix(".unpacked")
    try:
        with gzip.open(packed) as source, unpacked.open("wb") as out:
            while chunk := source.read(CHUNK):
                out.write(chunk)
                if out.tell() > limit:
                    raise WrongFileError(f"contains more than the {limit} bytes allowed")
        unpacked.replace(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise WrongFileError(f"is a broken gzip file: {one_line(error)}") from None
    finally:
        unpacked.unlink(missing_ok=True)


def _check_content(received: Path, file: Download) -> None:
    digest = sha256(received)
    if digest == file.sha256:
        return
    with received.open("rb") as text:
        start = text.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")) and not _expects_web_page(file):
        raise WrongFileError("sends a web page instead of text: a login or error page?")
    if file.sha256:
        raise WrongFileError(
            f"provides another file: its sha256 is {digest}, expected {file.sha256}"
        )
    if not received.stat().st_size:
        raise WrongFileError("provides an empty file")


def _check_response(response: httpx.Response, file: Download) -> None:
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
    if not file.sha256 and kind in WEB_PAGE and not _expects_web_page(file):
        target = f" (redirected to {response.url})" if response.history else ""
        raise WrongFileError(f"sends a web page instead of text{target}: a login or error page?")
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity", "gzip", "x-gzip"):  # gzip is detected by its first bytes
        raise SourceError(f"sends it encoded as {encoding}, which was not requested")


def _requested_pause(response: httpx.Response) -> float:
    """Return the seconds to wait from Retry-After, a number or a date."""
    value = response.headers.get("Retry-After", "")
    if value.isdecimal():
        return float(value)
    try:
        return (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return 0.0


def _check_size(size: int, file: Download, partial: _PartialFile) -> None:
    overhead = 0 if file.bytes is None else GZIP_OVERHEAD
    if size > _size_limit(file) + overhead:
        partial.remove()
        raise WrongFileError(f"sends more than the {_size_limit(file)} bytes allowed")


def _size_limit(file: Download) -> int:
    return MAX_BYTES if file.bytes is None else file.bytes


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _expects_web_page(file: Download) -> bool:
    return file.name.lower().endswith((".html", ".htm"))


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__


async def _pause(seconds: float) -> None:
    await asyncio.sleep(seconds)
