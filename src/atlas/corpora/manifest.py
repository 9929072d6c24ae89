"""The manifest of data/raw: what each raw file is, where it came from, under which licence."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import sha256, write_json

NAME = "manifest.json"


@dataclass(frozen=True)
class RawFile:
    """A file of data/raw, byte for byte as received.

    Attributes:
        name: path below data/raw, with forward slashes.
        url: where it came from; a path for the user's own files.
        sha256: of its bytes, hexadecimal.
        bytes: its size.
        licence: of its text.
    """

    name: str
    url: str
    sha256: str
    bytes: int
    licence: str

    @classmethod
    def of(cls, folder: Path, name: str, url: str, licence: str) -> "RawFile":
        """Describes the file ``name`` that was just put into ``folder``."""
        path = folder / name
        return cls(name, url, sha256(path), path.stat().st_size, licence)


def write_manifest(folder: Path, corpus: str, files: list[RawFile]) -> None:
    """Writes manifest.json into a folder of raw files."""
    write_json(folder / NAME, asdict(Manifest(corpus, files)))


@dataclass(frozen=True)
class Manifest:
    """What a folder of raw files holds.

    Attributes:
        corpus: its name.
        files: all of them.
    """

    corpus: str
    files: list[RawFile]

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Reads a manifest.json.

        Raises:
            AtlasError: there is none.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(values["corpus"], [RawFile(**file) for file in values["files"]])
        except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
            raise AtlasError(
                f"{path}: no manifest ({error}); `dvc repro -f fetch` makes it"
            ) from None


def read_raw_files(folder: Path) -> list[RawFile]:
    """What the manifest of a folder of raw files says, and they are.

    Raises:
        AtlasError: there is none, or a file that it names has another size.
    """
    files = Manifest.read(folder / NAME).files
    for file in files:
        raw = folder / file.name
        if not raw.is_file() or raw.stat().st_size != file.bytes:
            raise AtlasError(f"{raw}: not as fetched; `dvc repro -f fetch` fetches it again")
    return files
