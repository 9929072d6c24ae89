"""The manifest of data/raw: the origin, checksum and licence of each raw file.

Many small files are packed: a line of JSON with the name and size of each, then all contents.
"""

import json
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import sha256, write_json

NAME = "manifest.json"
PACKS = ".packs"  # folder; the user's hidden folders are never copied


@dataclass(frozen=True)
class RawFile:
    """A file of data/raw, byte for byte as received."""

    name: str  # path below data/raw, with forward slashes
    url: str  # origin; a path for the user's own files
    sha256: str
    bytes: int
    licence: str
    corpus: str | None = None  # label of its corpus in a mix, and first folder of its name
    packed: int | None = None  # number of small files that it packs

    @classmethod
    def describe(
        cls, folder: Path, name: str, url: str, licence: str, corpus: str | None = None
    ) -> "RawFile":
        """Describe the file ``name`` in ``folder``."""
        path = folder / name
        return cls(name, url, sha256(path), path.stat().st_size, licence, corpus)


def write_manifest(folder: Path, corpus: str, files: list[RawFile]) -> None:
    """Write manifest.json into a folder of raw files."""
    write_json(folder / NAME, asdict(Manifest(corpus, files)))


@dataclass(frozen=True)
class Manifest:
    """The name of a corpus and its raw files."""

    corpus: str
    files: list[RawFile]

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest.json."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values["corpus"], [RawFile(**file) for file in values["files"]])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise AtlasError(
                f"{path}: not a manifest ({error}); run `dvc repro -f fetch` again"
            ) from None


def read_raw_files(folder: Path) -> list[RawFile]:
    """Read the manifest of a folder of raw files and check their sizes."""
    files = Manifest.read(folder / NAME).files
    for file in files:
        raw = folder / file.name
        if _size(raw) != file.bytes:
            raise AtlasError(f"{raw}: changed since it was fetched; run `dvc repro -f fetch` again")
    return files


def _size(path: Path) -> int | None:
    """Return the size of a regular file, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def write_pack(folder: Path, number: int, files: list[tuple[str, bytes]]) -> str:
    """Write a pack of some files into a folder of raw files; return its name."""
    name = f"{PACKS}/{number:06d}.pack"
    index = json.dumps([(file, len(data)) for file, data in files]).encode()
    (folder / PACKS).mkdir(exist_ok=True)
    (folder / name).write_bytes(b"".join([index, b"\n", *(data for _, data in files)]))
    return name


def read_pack(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of a pack."""
    with path.open("rb") as file:
        for name, size in json.loads(file.readline()):
            yield name, file.read(size)
