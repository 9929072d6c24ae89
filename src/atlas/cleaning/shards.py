"""Clean documents to the shards of a split, counted on the way.

A shard is planned from the table of the documents alone, so shards are written apart, and their
bytes do not depend on who writes them.

Documents on their way through clean: texts in a file, what is known of each in a table.

A part is a folder. Its documents lie one a line in ``documents.jsonl``, as they will be written
out; ``table.npy`` has a row for each (where its line is, its keys), ``bands.npy`` the keys by
which near-duplicates are found. Texts are read again only where one is asked for.
"""

from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.documents import SPLITS, Document, Split
from atlas.cleaning.sketches import Bands, Sketcher, exact_key
from atlas.cleaning.splitting import cut, mark, sampled_runs, split_of
from atlas.cleaning.statistics import Statistics
from atlas.cleaning.words import Hashes, distinct, hash_words, joined
from atlas.params.schema import CleanParams

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


SMALLEST_SHARD, LARGEST_SHARD = 4 << 20, 64 << 20  # bytes: DVC pays for each file
SHARDS = 64  # aimed at, so that there is work for many
BATCH = 1 << 21  # characters counted at once
SplitBy = Literal["document", "position"]


@dataclass(frozen=True)
class Slice:
    """Documents ``first`` to ``last`` of a part, without those left out (by number)."""

    part: Part
    first: int
    last: int
    left_out: NDArray[np.int64]


ShardPlan = tuple[int, tuple[Slice, ...]]  # bytes, documents


@dataclass(frozen=True)
class ShardTask:
    """What goes into a shard.

    Attributes:
        path: of the shard.
        split: which of the documents it takes.
        split_by: whether each document belongs to a split, or a part of each does.
        clean: the shares of the splits.
        slices: of the documents.
        one_in: one run of words in so many is looked for.
        held_out: the runs to look for, sorted; None where this shard is held out itself.
    """

    path: Path
    split: Split
    split_by: SplitBy
    clean: CleanParams
    slices: tuple[Slice, ...]
    one_in: int
    held_out: Hashes | None


@dataclass
class ShardResult:
    """What was written.

    Attributes:
        statistics: of its documents.
        runs: those of the sample, sorted, where the shard is held out.
        seen: which of the held-out runs it has, where it trains.
    """

    statistics: Statistics
    runs: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))


def plan_shards(
    parts: Parts, left_out: NDArray[np.int64], clean: CleanParams, split_by: SplitBy, split: Split
) -> list[ShardPlan]:
    """The slices of each shard of a split, with the bytes that they come to (about, if cut).

    ``left_out`` are the numbers of documents that go nowhere, sorted.
    """
    shards: list[ShardPlan] = []
    slices: list[Slice] = []
    size = 0
    enough = min(max(parts.size() // SHARDS, SMALLEST_SHARD), LARGEST_SHARD)
    share = share_of(split, clean) if split_by == "position" else 1.0
    if not share:
        return []
    for part in parts.parts:
        table = part.table()
        gone = left_out[slice(*np.searchsorted(left_out, [part.first, part.first + part.count]))]
        taken = _taken(part, table, gone, split_by, split)
        ends = size + np.cumsum(np.where(taken, table["length"] * share, 0)).astype(np.int64)
        first = 0
        while first < part.count:
            last = first + int(np.searchsorted(ends[first:], enough, side="left")) + 1
            last = min(last, part.count)
            slices.append(Slice(part, first, last, gone))
            size = int(ends[last - 1])
            if size >= enough:
                shards.append((size, tuple(slices)))
                slices = []
                ends = ends - size
                size = 0
            first = last
    if slices and (size or split_by == "position"):
        shards.append((size, tuple(slices)))
    return shards


def share_of(split: Split, clean: CleanParams) -> float:
    """The share of the text that goes to a split."""
    held_out = {"val": clean.val, "test": clean.test}
    return held_out.get(split, 1 - clean.val - clean.test)


def write_shard(task: ShardTask) -> ShardResult:
    """Writes a shard and counts what is in it."""
    statistics = Statistics()
    held_out = task.held_out if task.held_out is not None else np.empty(0, np.uint64)
    seen = np.zeros(len(held_out), bool)
    found: list[Hashes] = []
    with task.path.open("wb") as file:
        for texts in _batches(task, file):
            words = hash_words(texts)
            statistics.add(texts, words)
            runs = sampled_runs(words, task.one_in)
            if task.held_out is None:
                found.append(distinct(runs))
            else:
                mark(held_out, runs, seen)
    if not statistics.documents:
        task.path.unlink()  # the cuts of short documents left nothing to this split
    statistics.keep_frequent_spellings()
    return ShardResult(statistics, distinct(joined(found)), seen)


def _batches(task: ShardTask, file: BinaryIO) -> Iterator[list[str]]:
    """Writes the documents; yields their texts, many at once."""
    texts: list[str] = []
    size = 0
    for line, document in _documents(task):
        file.write(line)
        texts.append(document.text)
        size += len(document.text)
        if size >= BATCH:
            yield texts
            texts, size = [], 0
    if texts:
        yield texts


def _documents(task: ShardTask) -> Iterator[tuple[bytes, Document]]:
    for piece in task.slices:
        table = piece.part.table()
        taken = _taken(piece.part, table, piece.left_out, task.split_by, task.split)
        taken[: piece.first] = False
        taken[piece.last :] = False
        for line in piece.part.lines(table[taken]):
            document = Document.from_line(line)
            if task.split_by == "document":
                yield line, document
                continue
            for split, part in cut(document, task.clean):
                if split == task.split:
                    yield part.to_line(), part


def _taken(
    part: Part,
    table: NDArray[Any],
    left_out: NDArray[np.int64],
    split_by: SplitBy,
    split: Split,
) -> NDArray[np.bool_]:
    taken: NDArray[np.bool_] = np.ones(part.count, bool)
    if split_by == "document":
        taken = table["split"] == SPLITS.index(split)
    taken[left_out - part.first] = False
    return taken
