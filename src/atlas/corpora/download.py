"""Verified downloads: from a mirror or the web, resumed where they broke off."""

import csv
import io
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from tqdm import tqdm

from atlas.corpora.registry import Download
from atlas.errors import NO_ROOM, AtlasError, one_line
from atlas.files import sha256

MIRROR_INDEX = "sources.csv"  # of a mirror: columns file and sha256, as in a list of sources
TRIES = 4
FIRST_PAUSE = 1.0  # seconds before the second try; doubled before each further one
TIMEOUT = httpx.Timeout(30, connect=10)


def download(file: Download, folder: Path, mirror: str | None, unfinished: Path) -> str:
    """Puts a file into ``folder``, whole and with the right checksum.

    Args:
        file: what to fetch.
        folder: where it goes, under its own name.
        mirror: a folder or URL to look in first, None for none.
        unfinished: folder that keeps what a broken download has received so far.

    Returns:
        Where it came from: the file's URL, or its place in the mirror.

    Raises:
        AtlasError: no place has it, none can be reached, or what came is another file.
    """
    problems = []
    for place in [*_mirrored(file, mirror), file.url]:
        try:
            if urlsplit(place).scheme in ("http", "https"):
                _from_web(place, file, folder, unfinished)
            else:
                _from_folder(Path(place), file, folder)
        except (httpx.HTTPError, OSError, _WrongContentError) as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise
            problems.append(f"{place}: {one_line(error) or type(error).__name__}")
        else:
            return place
    advice = "set ATLAS_MIRROR to" if mirror is None else f"add it to ATLAS_MIRROR={mirror}, or to"
    raise AtlasError(
        f"{file.name} could not be fetched ({'; '.join(problems)}). Check the network, or "
        f"{advice} a folder or URL that holds the file, and run again; with the corpus.name "
        "of before, `dvc repro` takes the earlier results from its cache"
    )


class _WrongContentError(Exception):
    """What was received is not the file that was asked for."""


def _mirrored(file: Download, mirror: str | None) -> Iterator[str]:
    """The places of a mirror where a file may be: by its index, by checksum, by name."""
    if not mirror:
        return
    if not urlsplit(mirror).scheme and not Path(mirror).is_dir():
        raise AtlasError(f"ATLAS_MIRROR={mirror}: no such folder; give one that holds {file.name}")
    for row in _mirror_index(mirror):
        if row.get("sha256") == file.sha256 and row.get("file"):
            yield f"{mirror}/{row['file']}"
            return
    if urlsplit(mirror).scheme in ("http", "https"):
        yield from (f"{mirror}/{file.sha256}", f"{mirror}/{file.name}")
    else:
        places = (Path(mirror) / file.sha256, Path(mirror) / file.name)
        yield from (str(place) for place in places if place.is_file())


def _mirror_index(mirror: str) -> list[dict[str, str]]:
    place = f"{mirror}/{MIRROR_INDEX}"
    try:
        if urlsplit(mirror).scheme in ("http", "https"):
            response = httpx.get(place, timeout=TIMEOUT, follow_redirects=True)
            response.raise_for_status()
            text = response.text
        else:
            text = Path(place).read_text(encoding="utf-8")
    except (httpx.HTTPError, OSError, UnicodeDecodeError):
        return []  # a mirror need not have an index
    return list(csv.DictReader(io.StringIO(text)))


def _from_folder(place: Path, file: Download, folder: Path) -> None:
    if sha256(place) != file.sha256:
        raise _WrongContentError(f"its sha256 is not {file.sha256}: this is another file")
    shutil.copyfile(place, folder / file.name)


def _from_web(url: str, file: Download, folder: Path, unfinished: Path) -> None:
    """Downloads in up to TRIES tries, each going on where the one before broke off."""
    unfinished.mkdir(parents=True, exist_ok=True)
    part = unfinished / file.sha256
    for attempt in range(TRIES):
        if attempt:
            time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
        try:
            _receive(url, file, part)
            break
        except httpx.HTTPStatusError as error:
            if error.response.status_code < 500 or attempt == TRIES - 1:
                raise
        except httpx.ConnectError:
            raise  # there is no network, or no such host: trying again does not help
        except httpx.TransportError:
            if attempt == TRIES - 1:
                raise
    received = sha256(part)
    if received != file.sha256:
        part.unlink()
        raise _WrongContentError(
            f"its sha256 is {received}, expected {file.sha256}: the file has changed or "
            "something in between answered instead"
        )
    shutil.move(part, folder / file.name)


def _receive(url: str, file: Download, part: Path) -> None:
    """Appends to ``part`` what is still missing of the file at ``url``."""
    have = part.stat().st_size if part.exists() else 0
    if have == file.bytes:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with httpx.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as got:
        got.raise_for_status()
        resumes = got.status_code == httpx.codes.PARTIAL_CONTENT
        with (
            part.open("ab" if resumes else "wb") as out,
            tqdm(
                desc=file.name,
                total=file.bytes,
                initial=have if resumes else 0,
                unit="B",
                unit_scale=True,
            ) as bar,
        ):
            for chunk in got.iter_raw():
                out.write(chunk)
                bar.update(len(chunk))
                if out.tell() > file.bytes:
                    part.unlink()
                    raise _WrongContentError(f"it sends more than the {file.bytes} bytes expected")
