"""Clean documents on disk: one JSON object a line, in numbered shards.

The three parts of a corpus: what trains, what validates, what tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from atlas.errors import AtlasError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Document:
    """A document: unique id, where it came from, its text."""

    id: str
    source: str
    text: str

    @classmethod
    def from_line(cls, line: bytes) -> "Document":
        """Reads what ``to_line`` wrote.

        Raises:
            ValueError, TypeError: the line is no document.
        """
        return cls(**orjson.loads(line))

    def to_line(self) -> bytes:
        """The document as a line of a shard."""
        return orjson.dumps(self, option=orjson.OPT_APPEND_NEWLINE)


def read_documents(folder: Path) -> Iterator[Document]:
    """The documents of a folder of clean shards, in order.

    Raises:
        AtlasError: a line is no document.
    """
    for path in shards_of(folder):
        yield from read_shard(path)


def shards_of(folder: Path) -> list[Path]:
    """The clean shards of a folder, in order."""
    return sorted(folder.glob("*.jsonl"))


def read_shard(path: Path) -> Iterator[Document]:
    """The documents of a clean shard, in order.

    Raises:
        AtlasError: a line is no document.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield Document.from_line(line)
            except (ValueError, TypeError) as error:
                raise AtlasError(
                    f"{path}:{number}: no document ({error}); `dvc repro -f clean` writes it"
                ) from None
