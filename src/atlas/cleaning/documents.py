"""Clean documents on disk: one JSON object a line, in numbered shards."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from atlas.errors import AtlasError

SHARD_BYTES = 64 << 20  # a few large files: DVC pays for each one


@dataclass(frozen=True)
class Document:
    """A document: unique id, where it came from, its text."""

    id: str
    source: str
    text: str


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents of a folder of clean shards, in order.

    Raises:
        AtlasError: a line is no document.
    """
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    yield Document(**json.loads(line))
                except (ValueError, TypeError) as error:
                    raise AtlasError(
                        f"{path}:{number}: no document ({error}); `dvc repro -f clean` writes it"
                    ) from None


class DocumentWriter:
    """Writes documents into numbered shards of a folder."""

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.shard_bytes = shard_bytes
        self.count = 0
        self.characters = 0
        self.words = 0
        self._shards = 0
        self._room = 0
        self._file: BinaryIO | None = None

    def write(self, document: Document) -> None:
        """Appends a document."""
        line = json.dumps(document.__dict__, ensure_ascii=False).encode() + b"\n"
        self._shard_for(len(line)).write(line)
        self.count += 1
        self.characters += len(document.text)
        self.words += len(document.text.split())

    def _shard_for(self, size: int) -> BinaryIO:
        """The shard that is being written, or the next one if ``size`` bytes do not fit."""
        if self._file is None or size > self._room:
            self.close()
            self._file = (self.folder / f"{self._shards:05d}.jsonl").open("wb")
            self._shards += 1
            self._room = self.shard_bytes
        self._room -= size
        return self._file

    def close(self) -> None:
        """Ends the last shard."""
        if self._file:
            self._file.close()

    def __enter__(self) -> "DocumentWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
