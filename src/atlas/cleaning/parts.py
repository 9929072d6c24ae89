"""Documents on their way through clean: texts in a file, what is known of each in a table.

A part is a folder. Its documents lie one a line in ``documents.jsonl``, as they will be written
out; ``table.npy`` has a row for each (where its line is, its keys), ``bands.npy`` the keys by
which near-duplicates are found. Texts are read again only where one is asked for.
"""

from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.documents import Document
from atlas.cleaning.sketches import Bands, Sketcher, exact_key
from atlas.cleaning.splits import SPLITS
from atlas.cleaning.splitting import split_of
from atlas.cleaning.words import Hashes
from atlas.params import CleanParams

ROW = np.dtype(
    [("offset", "<u8"), ("length", "<u4"), ("exact", "<u8", (2,)), ("split", "u1")],
)
DOCUMENTS, TABLE, BANDS = "documents.jsonl", "table.npy", "bands.npy"
KEPT_OPEN = 64  # parts of which single documents are asked for


class PartWriter:
    """Writes the documents of one part."""

    def __init__(self, folder: Path, bands: Bands | None) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._rows: list[tuple[int, int, Hashes, int]] = []
        self._sketcher = Sketcher(bands) if bands else None
        self._file = (folder / DOCUMENTS).open("wb")

    def write(self, document: Document, clean: CleanParams) -> None:
        """Appends a document; ``clean`` says how documents are split."""
        line = document.to_line()
        key = exact_key(document.text)
        split = SPLITS.index(split_of(key, clean))
        self._rows.append((self._file.tell(), len(line), np.frombuffer(key, "<u8"), split))
        self._file.write(line)
        if self._sketcher:
            self._sketcher.add(document.text)

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Ends the part."""
        self._file.close()
        np.save(self._folder / TABLE, np.array(self._rows, ROW))
        if self._sketcher:
            np.save(self._folder / BANDS, self._sketcher.keys())


@dataclass(frozen=True)
class Part:
    """A finished part; ``first`` is the number of its first document in the whole corpus."""

    folder: Path
    first: int
    count: int

    def table(self) -> NDArray[Any]:
        """A row of type ROW for each document."""
        rows: NDArray[Any] = np.load(self.folder / TABLE)
        return rows

    def band(self, number: int) -> Hashes:
        """The keys of one band. (documents,)."""
        keys = np.load(self.folder / BANDS, mmap_mode="r")
        band: Hashes = np.array(keys[number])
        return band

    def lines(self, rows: NDArray[Any]) -> Iterator[bytes]:
        """The lines of some of its documents, by their rows of the table."""
        with (self.folder / DOCUMENTS).open("rb") as file:
            for offset, length in zip(
                rows["offset"].tolist(), rows["length"].tolist(), strict=True
            ):
                file.seek(offset)
                yield file.read(length)

    def line(self, place: int) -> bytes:
        """The line of one document, by its place in the part."""
        rows, file = _opened(self.folder, (self.folder / DOCUMENTS).stat().st_ino)
        file.seek(int(rows["offset"][place]))
        return file.read(int(rows["length"][place]))


@lru_cache(maxsize=KEPT_OPEN)
def _opened(folder: Path, _inode: int) -> tuple[NDArray[Any], BinaryIO]:
    rows: NDArray[Any] = np.load(folder / TABLE, mmap_mode="r")
    return rows, (folder / DOCUMENTS).open("rb")


@dataclass(frozen=True)
class Parts:
    """All parts of a corpus, in order: documents by their number."""

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, folders: Iterable[tuple[Path, int]]) -> "Parts":
        """Numbers the documents of folders, each given with how many it has."""
        parts, first = [], 0
        for folder, count in folders:
            parts.append(Part(folder, first, count))
            first += count
        return cls(tuple(parts))

    def __len__(self) -> int:
        return self.parts[-1].first + self.parts[-1].count if self.parts else 0

    def size(self) -> int:
        """Bytes of all documents as lines."""
        return sum((part.folder / DOCUMENTS).stat().st_size for part in self.parts)

    def line(self, number: int) -> bytes:
        """The line of a document."""
        part = self.parts[bisect(self.parts, number, key=lambda part: part.first) - 1]
        return part.line(number - part.first)

    def document(self, number: int) -> Document:
        """A document."""
        return Document.from_line(self.line(number))
