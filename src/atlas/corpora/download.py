"""Verified downloads: several at once, from a mirror or the web, with one progress bar.

A file that has arrived waits in the folder of unfinished downloads until all the others have,
so that one that fails costs nothing but itself. Nothing is ever unpacked here but the gzip
around a single file: archives stay closed, and what is in them can escape nowhere.

The downloads are tasks of one event loop and no threads, because tasks can be stopped at once.

Mirrors: a folder or URL in which downloads are looked for before the web.

A mirror holds files under their names, under their sha256, or anywhere if its sources.csv lists
them (columns file and sha256, and perhaps url). A file may be gzipped there.
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
    Absent,
    AnotherFile,
    Meter,
    Part,
    Refused,
    expects_web_page,
    is_packed,
    size_limit,
    transfer,
)
from atlas.errors import NO_ROOM, AtlasError, one_line
from atlas.pipeline.files import sha256

INDEX = "sources.csv"
TIMEOUT = httpx.Timeout(30, connect=10)


def is_url(place: str) -> bool:
    """Whether a place is on the web; it is a path otherwise."""
    return urlsplit(place).scheme.lower() in ("http", "https")


@dataclass(frozen=True)
class Mirror:
    """A mirror and its index.

    Attributes:
        root: a folder or URL, without a slash at the end.
        rows: of its index; none if it has no index.
    """

    root: str
    rows: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def open(cls, root: str) -> "Mirror":
        """Reads the index of a mirror.

        Raises:
            AtlasError: it is neither a folder nor a URL.
        """
        root = root.rstrip("/") or root
        if not is_url(root) and not Path(root).is_dir():
            raise AtlasError(
                f"ATLAS_MIRROR={root}: no such folder; give one that holds your downloads, or a URL"
            )
        return cls(root, _index(root))

    def places(self, file: Download) -> list[str]:
        """Where the mirror may have a file: first by its index, then by checksum and name."""
        names = {file.name, *(PurePosixPath(urlsplit(url).path).name for url in file.urls)}
        found = [row["file"] for row in self.rows if row.get("file") and _is_of(row, file, names)]
        guesses = [file.sha256] if file.sha256 else []
        guesses += [file.name, *sorted(names - {file.name})]
        found += [guess + suffix for guess in guesses for suffix in ("", ".gz")]
        if is_url(self.root):
            return [f"{self.root}/{quote(name)}" for name in dict.fromkeys(found)]
        paths = [Path(self.root) / name for name in dict.fromkeys(found)]
        return [str(path) for path in paths if path.is_file()]


def _is_of(row: dict[str, str], file: Download, names: set[str]) -> bool:
    """Whether a row of the index is about a file: by checksum, else by URL or name."""
    if file.sha256:
        return (row.get("sha256") or "").lower() == file.sha256
    return row.get("url") in file.urls or PurePosixPath(row["file"]).name in names


def _index(root: str) -> list[dict[str, str]]:
    place = f"{root}/{INDEX}"
    try:
        if is_url(root):
            response = httpx.get(place, timeout=TIMEOUT, follow_redirects=True)
            response.raise_for_status()
            text = response.text
        else:
            text = Path(place).read_text(encoding="utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeDecodeError, csv.Error):
        return []  # a mirror need not have an index


AT_ONCE = 4
MOST_NAMED = 3  # files that an error tells of
PIECE = 2**20  # bytes


def download(
    files: Sequence[Download], folder: Path, mirror: str | None, unfinished: Path
) -> dict[str, str]:
    """Puts files into ``folder``, each whole and, where its checksum is known, the right one.

    Args:
        files: what to fetch.
        folder: where they go, under their own names.
        mirror: a folder or URL to look in first, None for none.
        unfinished: folder that keeps what is there already if some of it is not to be had.

    Returns:
        For each name the URL whose content it is, also where it came from a mirror.

    Raises:
        AtlasError: a line that names the files that no place gave, and why.
    """
    unfinished.mkdir(parents=True, exist_ok=True)
    source = Mirror.open(mirror) if mirror else None
    problems = [
        problem for problem in asyncio.run(_bring_all(files, source, unfinished)) if problem
    ]
    if problems:
        more = f"; and {len(problems) - MOST_NAMED} more" if len(problems) > MOST_NAMED else ""
        advice = f"add it to ATLAS_MIRROR={mirror}, or to" if mirror else "set ATLAS_MIRROR to"
        raise AtlasError(
            f"{len(problems)} of {len(files)} files could not be fetched: "
            f"{'; '.join(problems[:MOST_NAMED])}{more}. Check the network, or "
            f"{advice} a folder or URL that holds what is missing, and run again: what has "
            "arrived is kept. With the corpus.name of before, `dvc repro` takes the earlier "
            "results from its cache"
        )
    urls = {}
    for file in files:
        whole = _whole(file, unfinished)
        shutil.move(whole, folder / file.name)
        urls[file.name] = _url_path(whole).read_text(encoding="utf-8")
    return urls


async def _bring_all(
    files: Sequence[Download], mirror: Mirror | None, unfinished: Path
) -> list[str]:
    """For each file the reason why it is not to be had, empty if it is there."""
    gate = asyncio.Semaphore(AT_ONCE)
    known = sum(file.bytes or 0 for file in files)
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(timeout=TIMEOUT, follow_redirects=True, limits=limits) as client:
        with tqdm(desc="fetch", total=known, unit="B", unit_scale=True) as bar:

            async def bring(file: Download) -> str:
                async with gate:
                    meter = Meter(bar, file.bytes or 0)
                    return await _bring(client, file, mirror, unfinished, meter)

            return await asyncio.gather(*(bring(file) for file in files))


async def _bring(
    client: httpx.AsyncClient,
    file: Download,
    mirror: Mirror | None,
    unfinished: Path,
    meter: Meter,
) -> str:
    """Tries the places of a file until one gives it; else says what was wrong with them."""
    whole = _whole(file, unfinished)
    if whole.exists():
        meter.expect(whole.stat().st_size)
        meter.at(whole.stat().st_size)
        return ""
    problems, missing = [], []
    for place in mirror.places(file) if mirror else []:
        _url_path(whole).write_text(_same_name(place, file), encoding="utf-8")
        try:
            await _take(client, place, file, whole, meter)
            return ""
        except Absent:
            continue
        except AnotherFile as reason:
            problems.append(f"{place} {reason}")
        except Refused as reason:
            problems.append(f"{place} {reason}")
            break  # the mirror is in trouble, and would be so again
    for tried, url in enumerate(file.urls):
        _url_path(whole).write_text(url, encoding="utf-8")
        try:
            await _take(client, url, file, whole, meter)
            return ""
        except Absent as reason:
            others = f", as do {tried} others" if tried else ""
            missing = [f"{url} answers {reason}{others}"]
        except Refused as reason:
            problems.append(f"{url} {reason}")
            missing = []
            break  # only a file that is missing may be replaced by another edition
    reasons = ", ".join([*problems, *missing]) or "no place is known"
    return f"{file.name} ({reasons})"


async def _take(
    client: httpx.AsyncClient, place: str, file: Download, whole: Path, meter: Meter
) -> None:
    """Brings a file from one place, checks it and makes it ``whole``.

    Raises:
        Refused: the place does not give it, or gives another file.
    """
    if not is_url(place):
        copy = whole.with_suffix(".copy")
        await asyncio.to_thread(_copy, Path(place), copy)
        meter.expect(copy.stat().st_size)
        meter.at(copy.stat().st_size)
        await asyncio.to_thread(_settle, copy, file, whole)
        return
    key = hashlib.sha256(f"{place} {file.sha256}".encode()).hexdigest()[:16]
    part = Part(whole.with_name(f"{key}.part"))
    resumed = await transfer(client, place, file, part, meter)
    try:
        await asyncio.to_thread(_settle, part.path, file, whole)
    except AnotherFile:
        if not resumed:
            raise
        # Its beginning may have been of another version, so once more from the start.
        await transfer(client, place, file, part, meter)
        await asyncio.to_thread(_settle, part.path, file, whole)


def _copy(place: Path, copy: Path) -> None:
    try:
        shutil.copyfile(place, copy)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        raise Refused(f"cannot be read: {error.strerror}") from None


def _settle(received: Path, file: Download, whole: Path) -> None:
    """Moves what was received to ``whole`` if it is the file, without the gzip around it."""
    try:
        if is_packed(received) and not file.name.lower().endswith(".gz"):
            _unpack(received, size_limit(file))
        _check(received, file)
        received.replace(whole)
    finally:
        received.unlink(missing_ok=True)


def _unpack(packed: Path, most: int) -> None:
    """Replaces a gzipped file by what it holds, ``most`` bytes at most."""
    unpacked = packed.with_suffix(".unpacked")
    try:
        with gzip.open(packed) as source, unpacked.open("wb") as out:
            while piece := source.read(PIECE):
                out.write(piece)
                if out.tell() > most:
                    raise AnotherFile(f"holds more than the {most} bytes that it may have")
        unpacked.replace(packed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise AnotherFile(f"is a broken gzip file: {one_line(error)}") from None
    finally:
        unpacked.unlink(missing_ok=True)


def _check(received: Path, file: Download) -> None:
    digest = sha256(received)
    if digest == file.sha256:
        return
    with received.open("rb") as text:
        begin = text.read(1000).removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if begin.startswith((b"<!doctype html", b"<html")) and not expects_web_page(file):
        raise AnotherFile("sends a web page and no text: a login or error page?")
    if file.sha256:
        raise AnotherFile(f"gives another file: its sha256 is {digest}, expected {file.sha256}")
    if not received.stat().st_size:
        raise AnotherFile("gives an empty file")


def _whole(file: Download, unfinished: Path) -> Path:
    """Where a file waits for the others: a name for exactly this file."""
    identity = "\n".join([file.name, str(file.sha256), *file.urls])
    return unfinished / f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}.whole"


def _url_path(whole: Path) -> Path:
    """Where it is noted whose content a file is."""
    return whole.with_suffix(".url")


def _same_name(place: str, file: Download) -> str:
    """The URL of a file that a mirror has under this name."""
    name = place.rsplit("/", 1)[-1].removesuffix(".gz")
    return next((url for url in file.urls if url.endswith(f"/{name}")), next(iter(file.urls), ""))
