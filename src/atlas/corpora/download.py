"""Verified downloads: several at once, from a mirror or the web, resumed and retried.

Data goes to a partial file that survives broken connections and the end of the program, so the next
try, or the next run, continues from there. Finished files wait next to it until all have arrived,
so that one failure does not discard the others. Gzip around a single file is unpacked; archives
stay closed.

A mirror is a folder or URL that is tried before the web. It holds files, plain or gzipped, by name,
by sha256, or anywhere if its sources.csv lists them (columns file and sha256, optionally url).

Downloads are asyncio tasks, not threads, because tasks can be stopped immediately.
"""

import asyncio
import csv
import gzip
import hashlib
import io
import shutil
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from tqdm import tqdm

from atlas.errors import NO_ROOM, AtlasError, one_line
from atlas.pipeline.files import sha256

INDEX_NAME = "sources.csv"
MAX_CONCURRENT = 4
MAX_NAMED = 3  # files in an error message
TIMEOUT = httpx.Timeout(30, connect=10)
TRIES = 4
FIRST_PAUSE = 1.0  # seconds before the second try, doubled before each further one
MAX_PAUSE = 120.0  # seconds; longer waits requested by a server end the download
SPEED_WINDOW = 30.0  # seconds over which the speed is measured
MIN_SPEED = 1000.0  # bytes per second
CHUNK = 2**20  # bytes
MAX_BYTES = 50_000_000_000  # of a file of unknown size
GZIP_OVERHEAD = 1000  # a gzipped copy can be this many bytes larger than its file
GZIP_MAGIC = b"\x1f\x8b"
RETRY_STATUS = {408, 425, 429}  # and every 5xx
WEB_PAGE = ("text/html", "application/xhtml+xml")


@dataclass(frozen=True)
class Download:
    """A file on the web."""

    name: str  # in data/raw
    urls: tuple[str, ...]  # later ones are tried if the earlier ones have no such file
    sha256: str | None = None  # None if unknown
    bytes: int | None = None


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


def download(
    files: Sequence[Download], folder: Path, mirror: str | None, unfinished: Path
) -> dict[str, str]:
    """Download files into ``folder`` and verify their checksums, where known.

    A ``mirror`` is tried first. ``unfinished`` keeps finished and partial files if others fail.
    Return the original URL of each file by name, also for files from a mirror.
    """
    unfinished.mkdir(parents=True, exist_ok=True)
    opened = Mirror.open(mirror) if mirror else None
    problems = list(filter(None, asyncio.run(_fetch_all(files, opened, unfinished))))
    if problems:
        more = f"; and {len(problems) - MAX_NAMED} more" if len(problems) > MAX_NAMED else ""
        advice = f"add them to ATLAS_MIRROR={mirror}" if mirror else "set ATLAS_MIRROR"
        raise AtlasError(
            f"{len(problems)} of {len(files)} files could not be fetched: "
            f"{'; '.join(problems[:MAX_NAMED])}{more}. Check the network, or {advice} (a folder "
            "or URL with the missing files), and run again; files that arrived are kept. To go "
            "back, restore corpus.name: `dvc repro` then takes the results from its cache"
        )
    urls = {}
    for file in files:
        complete = _complete_path(file, unfinished)
        shutil.move(complete, folder / file.name)
        urls[file.name] = complete.with_suffix(".url").read_text(encoding="utf-8")
    return urls


async def _fetch_all(
    files: Sequence[Download], mirror: "Mirror | None", unfinished: Path
) -> list[str]:
    """Fetch all files; return a problem for each, empty if it arrived."""
    gate = asyncio.Semaphore(MAX_CONCURRENT)
    total = sum(file.bytes or 0 for file in files)
    limits = httpx.Limits(max_connections=MAX_CONCURRENT)
    async with httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=True, limits=limits) as client:
        with tqdm(desc="fetch", total=total, unit="B", unit_scale=True) as bar:

            async def fetch(file: Download) -> str:
                async with gate:
                    transfer = Transfer(client, file, _complete_path(file, unfinished), bar)
                    return await _fetch(transfer, mirror)

            return await asyncio.gather(*map(fetch, files))


async def _fetch(transfer: "Transfer", mirror: "Mirror | None") -> str:
    """Try the locations of a file in turn; return the problems if none provides it."""
    file, url_file = transfer.file, transfer.complete.with_suffix(".url")
    if transfer.complete.exists():
        transfer.show_copied(transfer.complete)
        return ""
    problems, missing = [], []
    for location in mirror.locations(file) if mirror else []:
        url_file.write_text(_matching_url(location, file), encoding="utf-8")
        try:
            await transfer.fetch(location)
            return ""
        except FileMissingError:
            continue
        except WrongFileError as error:
            problems.append(f"{location} {error}")
        except SourceError as error:
            problems.append(f"{location} {error}")
            break  # the mirror is failing, so its other locations would fail too
    for tried, url in enumerate(file.urls):
        url_file.write_text(url, encoding="utf-8")
        try:
            await transfer.fetch(url)
            return ""
        except FileMissingError as error:
            others = f", as did {tried} others" if tried else ""
            missing = [f"{url} {error}{others}"]
        except SourceError as error:
            problems.append(f"{url} {error}")
            missing = []
            break  # only a missing file is replaced by another edition
    reasons = ", ".join([*problems, *missing]) or "no known location"
    return f"{file.name} ({reasons})"


def _complete_path(file: Download, unfinished: Path) -> Path:
    """Return where a complete file waits for the others; the name identifies its source."""
    identity = "\n".join([file.name, str(file.sha256), *file.urls])
    return unfinished / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.complete"


def _matching_url(location: str, file: Download) -> str:
    """Find the original URL that ends in the file name of ``location``, a path on a mirror."""
    name = location.rsplit("/", 1)[-1].removesuffix(".gz")
    return next((url for url in file.urls if url.endswith(f"/{name}")), next(iter(file.urls), ""))


def is_url(location: str) -> bool:
    """Tell URLs from paths."""
    return urlsplit(location).scheme.lower() in ("http", "https")


@dataclass(frozen=True)
class Mirror:
    """A mirror and the rows of its index, if it has one."""

    root: str  # a folder or URL without a trailing slash
    rows: list[dict[str, str]]

    @classmethod
    def open(cls, root: str) -> "Mirror":
        """Read the index of a mirror."""
        root = root.rstrip("/") or root
        if not is_url(root) and not Path(root).is_dir():
            raise AtlasError(
                f"ATLAS_MIRROR={root}: no such folder; give a folder of downloads, or a URL"
            )
        location = f"{root}/{INDEX_NAME}"
        try:
            if is_url(root):
                response = httpx.get(location, timeout=TIMEOUT, follow_redirects=True)
                text = response.raise_for_status().text
            else:
                text = Path(location).read_text(encoding="utf-8-sig")
            return cls(root, list(csv.DictReader(io.StringIO(text))))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeDecodeError, csv.Error):
            return cls(root, [])  # the index is optional

    def locations(self, file: Download) -> list[str]:
        """List possible locations of a file: by the index, then by checksum and name."""
        names = {file.name, *(PurePosixPath(urlsplit(url).path).name for url in file.urls)}
        found = [row["file"] for row in self.rows if row.get("file") and _matches(row, file, names)]
        guesses = [file.sha256] if file.sha256 else []
        guesses += [file.name, *sorted(names - {file.name})]
        found += [guess + suffix for guess in guesses for suffix in ("", ".gz")]
        if is_url(self.root):
            return [f"{self.root}/{quote(name)}" for name in dict.fromkeys(found)]
        paths = [Path(self.root) / name for name in dict.fromkeys(found)]
        return [str(path) for path in paths if path.is_file()]


def _matches(row: dict[str, str], file: Download, names: set[str]) -> bool:
    """Match a row of the index with a file: by checksum, or else by URL or name."""
    if file.sha256:
        return (row.get("sha256") or "").lower() == file.sha256
    return row.get("url") in file.urls or PurePosixPath(row["file"]).name in names


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
        self.expected = self.file.bytes or 0
        self.max_bytes = MAX_BYTES if self.file.bytes is None else self.file.bytes

    def show(self, received: int, expected: int | None = None) -> None:
        """Show the bytes received so far, fewer than before after a restart; correct the total."""
        if expected is not None:
            self.bar.total = (self.bar.total or 0) + expected - self.expected
            self.expected = expected
        self.bar.update(received - self.received)
        self.received = received

    def show_copied(self, path: Path) -> None:
        """Show a file that was copied whole."""
        self.show(path.stat().st_size, path.stat().st_size)

    async def fetch(self, location: str) -> None:
        """Fetch the file from one location, or raise a SourceError if it isn't the right one."""
        if not is_url(location):
            copy = self.complete.with_suffix(".copy")
            await asyncio.to_thread(_copy, Path(location), copy)
            self.show_copied(copy)
            await asyncio.to_thread(_accept, copy, self)
            return
        key = hashlib.sha256(f"{location} {self.file.sha256}".encode()).hexdigest()[:16]
        partial = _PartialFile(self.complete.with_name(f"{key}.part"))
        resumed = await self._download(location, partial)
        try:
            await asyncio.to_thread(_accept, partial.path, self)
        except WrongFileError:
            if not resumed:
                raise
            # The resumed part can be from another version, so start once more.
            await self._download(location, partial)
            await asyncio.to_thread(_accept, partial.path, self)

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
                raise SourceError(f"{failure}, asks to wait {failure.pause:.0f} s: try again later")
            if attempt < TRIES - 1:
                await asyncio.sleep(max(failure.pause, FIRST_PAUSE * 2**attempt))
        raise SourceError(f"{failure} (tried {TRIES} times)")

    async def _receive(self, url: str, partial: _PartialFile) -> None:
        """Append the missing bytes to ``partial`` from one response."""
        if partial.size() and not (self.file.sha256 or partial.version()):
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
                raise _RetryError("has a different length than the part received")
            _check_response(response, self.file)
            resumes = response.status_code == httpx.codes.PARTIAL_CONTENT
            span = response.headers.get("Content-Range", f"bytes {have}-")
            if resumes and not span.startswith(f"bytes {have}-"):
                partial.remove()
                raise _RetryError("returned a different range than requested")
            if not resumes:
                have = 0
                partial.save_version(response)
            length = response.headers.get("Content-Length", "")
            if length.isdecimal():
                self._check_size(have + int(length), partial)
                self.show(self.received, have + int(length))
            with partial.path.open("ab" if resumes else "wb") as out:
                self.show(have)
                since, in_window = time.monotonic(), 0
                async for chunk in response.aiter_raw():
                    out.write(chunk)
                    have += len(chunk)
                    self._check_size(have, partial)
                    self.show(have)
                    in_window += len(chunk)
                    seconds = time.monotonic() - since
                    if seconds >= SPEED_WINDOW:
                        speed = in_window / seconds
                        if speed < MIN_SPEED:
                            raise _RetryError(f"too slow: {speed:.0f} bytes per second")
                        since, in_window = time.monotonic(), 0
        # Without an announced length, a broken connection looks like the end of the file.
        announced = "Content-Length" in response.headers or "Transfer-Encoding" in response.headers
        if not announced and have < (self.file.bytes or 0) and not _is_gzipped(partial.path):
            raise _RetryError(f"broke off after {have} of {self.file.bytes} bytes")

    def _check_size(self, size: int, partial: _PartialFile) -> None:
        if size > self.max_bytes + (0 if self.file.bytes is None else GZIP_OVERHEAD):
            partial.remove()
            raise WrongFileError(f"sends more than the {self.max_bytes} bytes allowed")


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


def _copy(location: Path, copy: Path) -> None:
    try:
        shutil.copyfile(location, copy)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise SourceError(f"can't be read: {error.strerror}") from None


def _accept(received: Path, transfer: Transfer) -> None:
    """Unpack the gzip around a received file, verify it and move it to ``transfer.complete``."""
    try:
        if _is_gzipped(received) and not transfer.file.name.lower().endswith(".gz"):
            _unpack(received, transfer.max_bytes)
        _check_content(received, transfer.file)
        received.replace(transfer.complete)
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
        raise WrongFileError(f"provides another file: sha256 {digest}, expected {file.sha256}")
    if not received.stat().st_size:
        raise WrongFileError("provides an empty file")


def _is_gzipped(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def _expects_web_page(file: Download) -> bool:
    return file.name.lower().endswith((".html", ".htm"))


def _reason(error: Exception) -> str:
    return one_line(error) or type(error).__name__
