"""Cleaned documents between the passes of clean: texts in files, their keys in arrays.

A chunk is a folder with up to some ten thousand documents. ``documents.jsonl`` has one per line,
ready to be copied to a shard; ``table.npy`` has a row for each with its place in that file and its
keys; ``bands.npy`` has the keys that find near duplicates. Texts are only read when needed.
"""

from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.documents import Document
from atlas.cleaning.words import Hashes

# A document's bytes in documents.jsonl, the key of its text, and its index in SPLITS.
ROW = np.dtype([("offset", "<u8"), ("length", "<u4"), ("key", "<u8", (2,)), ("split", "u1")])
DOCUMENTS, TABLE, BANDS = "documents.jsonl", "table.npy", "bands.npy"
MAX_OPEN_CHUNKS = 64


@dataclass(frozen=True)
class Chunk:
    """A finished chunk; ``first`` is the number of its first document in the corpus."""

    folder: Path
    first: int
    count: int

    def table(self) -> NDArray[Any]:
        """Load the rows of type ROW. (documents,)."""
        rows: NDArray[Any] = np.load(self.folder / TABLE)
        return rows

    def keys(self, band: int | None) -> Hashes:
        """Load the keys of a band, (documents, 1), or of the texts, (documents, 2)."""
        if band is None:
            keys: Hashes = self.table()["key"]
        else:
            keys = np.array(np.load(self.folder / BANDS, mmap_mode="r")[band, :, None])
        return keys

    def documents(self, indices: Sequence[int] | NDArray[np.intp]) -> Iterator[Document]:
        """Read some documents by their indices in the chunk."""
        table, file = _open(self.folder, (self.folder / DOCUMENTS).stat().st_ino)
        for offset, length in table[indices][["offset", "length"]].tolist():
            file.seek(offset)
            yield Document.from_line(file.read(length))


@lru_cache(maxsize=MAX_OPEN_CHUNKS)
def _open(folder: Path, _inode: int) -> tuple[NDArray[Any], BinaryIO]:
    table: NDArray[Any] = np.load(folder / TABLE, mmap_mode="r")
    return table, (folder / DOCUMENTS).open("rb")


@dataclass(frozen=True)
class StagedCorpus:
    """All chunks of a corpus in order. Documents are numbered across chunks."""

    chunks: tuple[Chunk, ...]

    @classmethod
    def from_folders(cls, folders: Iterable[tuple[Path, int]]) -> "StagedCorpus":
        """Number the documents of chunks, each given as folder and document count."""
        chunks, first = [], 0
        for folder, count in folders:
            chunks.append(Chunk(folder, first, count))
            first += count
        return cls(tuple(chunks))

    def __len__(self) -> int:
        return self.chunks[-1].first + self.chunks[-1].count if self.chunks else 0

    def size(self) -> int:
        """Total bytes of the documents as lines."""
        return sum((chunk.folder / DOCUMENTS).stat().st_size for chunk in self.chunks)

    def document(self, number: int) -> Document:
        """Read a document by its number."""
        chunk = self.chunks[bisect(self.chunks, number, key=lambda chunk: chunk.first) - 1]
        return next(chunk.documents([number - chunk.first]))
