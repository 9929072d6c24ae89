"""Verified downloads: several at once, from a mirror or the web, with one progress bar.

A finished file waits in the folder of unfinished downloads until all others have arrived, so a
failure doesn't cost the files that arrived. Only the gzip around a single file is unpacked here;
archives stay closed.

A mirror is a folder or URL that is tried before the web. It holds files under their names, under
their sha256, or anywhere if its sources.csv lists them (columns file and sha256, optionally url).
Its files can be gzipped.

Downloads are asyncio tasks and not threads, because tasks can be stopped at once.
"""

import asyncio
import csv
import gzip
import hashlib
import io
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import httpx
from tqdm import tqdm

from atlas.corpora.registry import Download
from atlas.corpora.transfer import (
    FileMissingError,
    FileProgress,
    PartialFile,
    SourceError,
    WrongFileError,
    expects_web_page,
    is_gzipped,
    size_limit,
    transfer,
)
from atlas.errors import NO_ROOM, AtlasError, one_line
from atlas.pipeline.files import sha256

INDEX_NAME = "sources.csv"
MAX_CONCURRENT = 4
MAX_NAMED = 3  # files in an error message
CHUNK = 2**20  # bytes
TIMEOUT = httpx.Timeout(30, connect=10)


def is_url(location: str) -> bool:
    """Tell URLs from paths."""
    return urlsplit(location).scheme.lower() in ("http", "https")


@dataclass(frozen=True)
class Mirror:
    """A mirror and the rows of its index, if it has one."""

    root: str  # a folder or URL without a trailing slash
    rows: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def open(cls, root: str) -> "Mirror":
        """Read the index of a mirror."""
        root = root.rstrip("/") or root
        if not is_url(root) and not Path(root).is_dir():
            raise AtlasError(
                f"ATLAS_MIRROR={root}: no such folder; give a folder of downloads, or a URL"
            )
        return cls(root, _read_index(root))

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


def _read_index(root: str) -> list[dict[str, str]]:
    location = f"{root}/{INDEX_NAME}"
    try:
        if is_url(root):
            response = httpx.get(location, timeout=TIMEOUT, follow_redirects=True)
            response.raise_for_status()
            text = response.text
        else:
            text = Path(location).read_text(encoding="utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeDecodeError, csv.Error):
        return []  # the index is optional


def download(
    files: Sequence[Download], folder: Path, mirror: str | None, unfinished: Path
) -> dict[str, str]:
    """Download files into ``folder`` and verify their checksums, where known."""
    unfinished.mkdir(parents=True, exist_ok=True)
    opened = Mirror.open(mirror) if mirror else None
    problems = [
        problem for problem in asyncio.run(_fetch_all(files, opened, unfinished)) if problem
    ]
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
        urls[file.name] = _url_file(complete).read_text(encoding="utf-8")
    return urls


async def _fetch_all(
    files: Sequence[Download], mirror: Mirror | None, unfinished: Path
) -> list[str]:
    """Fetch all files; return a problem for each, empty if it arrived."""
    gate = asyncio.Semaphore(MAX_CONCURRENT)
    total = sum(file.bytes or 0 for file in files)
    limits = httpx.Limits(max_connections=MAX_CONCURRENT)
    async with httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=True, limits=limits) as client:
        with tqdm(desc="fetch", total=total, unit="B", unit_scale=True) as bar:

            async def fetch(file: Download) -> str:
                async with gate:
                    progress = FileProgress(bar, file.bytes or 0)
                    return await _fetch(client, file, mirror, unfinished, progress)

            return await asyncio.gather(*(fetch(file) for file in files))


async def _fetch(
    client: httpx.AsyncClient,
    file: Download,
    mirror: Mirror | None,
    unfinished: Path,
    progress: FileProgress,
) -> str:
    """Try the locations of a file in turn; return the problems if none provides it."""
    complete = _complete_path(file, unfinished)
    if complete.exists():
        progress.expect(complete.stat().st_size)
        progress.update(complete.stat().st_size)
        return ""
    problems, missing = [], []
    for location in mirror.locations(file) if mirror else []:
        _url_file(complete).write_text(_matching_url(location, file), encoding="utf-8")
        try:
            await _fetch_from(client, location, file, complete, progress)
            return ""
        except FileMissingError:
            continue
        except WrongFileError as error:
            problems.append(f"{location} {error}")
        except SourceError as error:
            problems.append(f"{location} {error}")
            break  # the mirror has a problem, and would again
    for tried, url in enumerate(file.urls):
        _url_file(complete).write_text(url, encoding="utf-8")
        try:
            await _fetch_from(client, url, file, complete, progress)
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


async def _fetch_from(
    client: httpx.AsyncClient, location: str, file: Download, complete: Path, progress: FileProgress
) -> None:
    """Fetch a file from one location and move it to ``complete`` if it is the right one."""
    if not is_url(location):
        copy = complete.with_suffix(".copy")
        await asyncio.to_thread(_copy, Path(location), copy)
        progress.expect(copy.stat().st_size)
        progress.update(copy.stat().st_size)
        await asyncio.to_thread(_accept, copy, file, complete)
        return
    key = hashlib.sha256(f"{location} {file.sha256}".encode()).hexdigest()[:16]
    partial = PartialFile(complete.with_name(f"{key}.part"))
    resumed = await transfer(client, location, file, partial, progress)
    try:
        await asyncio.to_thread(_accept, partial.path, file, complete)
    except WrongFileError:
        if not resumed:
            raise
        # The resumed part can be from another version, so start once more.
        await transfer(client, location, file, partial, progress)
        await asyncio.to_thread(_accept, partial.path, file, complete)


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
        if is_gzipped(received) and not file.name.lower().endswith(".gz"):
            _unpack(received, size_limit(file))
        _check(received, file)
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


def _check(received: Path, file: Download) -> None:
    digest = sha256(received)
    if digest == file.sha256:
        return
    with received.open("rb") as text:
        start = text.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")) and not expects_web_page(file):
        raise WrongFileError("sends a web page instead of text: a login or error page?")
    if file.sha256:
        raise WrongFileError(
            f"provides another file: its sha256 is {digest}, expected {file.sha256}"
        )
    if not received.stat().st_size:
        raise WrongFileError("provides an empty file")


def _complete_path(file: Download, unfinished: Path) -> Path:
    """Return where a file waits for the others, under a name for exactly this file."""
    identity = "\n".join([file.name, str(file.sha256), *file.urls])
    return unfinished / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.complete"


def _url_file(complete: Path) -> Path:
    """Return the file that records the original URL."""
    return complete.with_suffix(".url")


def _matching_url(location: str, file: Download) -> str:
    """Return the URL of a file that ends in its name on a mirror."""
    name = location.rsplit("/", 1)[-1].removesuffix(".gz")
    return next((url for url in file.urls if url.endswith(f"/{name}")), next(iter(file.urls), ""))
