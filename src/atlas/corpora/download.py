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
import hashlib
import io
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

import httpx
from tqdm import tqdm

from atlas.corpora.registry import Download
from atlas.corpora.transfer import FileMissingError, SourceError, Transfer, WrongFileError, is_url
from atlas.errors import AtlasError

INDEX_NAME = "sources.csv"
MAX_CONCURRENT = 4
MAX_NAMED = 3  # files in an error message
TIMEOUT = httpx.Timeout(30, connect=10)


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
                    transfer = Transfer(client, file, _complete_path(file, unfinished), bar)
                    return await _fetch(transfer, mirror)

            return await asyncio.gather(*map(fetch, files))


async def _fetch(transfer: Transfer, mirror: Mirror | None) -> str:
    """Try the locations of a file in turn; return the problems if none provides it."""
    file, url_file = transfer.file, _url_file(transfer.complete)
    if transfer.complete.exists():
        transfer.finish(transfer.complete)
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
            break  # the mirror has a problem, and would again
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


def _url_file(complete: Path) -> Path:
    """Return the file that records the original URL."""
    return complete.with_suffix(".url")


def _matching_url(location: str, file: Download) -> str:
    """Find the original URL that ends in the file name of ``location``, a path on a mirror."""
    name = location.rsplit("/", 1)[-1].removesuffix(".gz")
    return next((url for url in file.urls if url.endswith(f"/{name}")), next(iter(file.urls), ""))
