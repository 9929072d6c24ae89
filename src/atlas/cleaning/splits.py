"""Stage cleaned documents, split them into train, val and test, write the shards, measure leakage.

Between the passes of clean, texts are in files and their keys in arrays. A chunk is a folder with
up to some ten thousand documents. ``documents.jsonl`` has one per line, ready to be copied to a
shard; ``table.npy`` has a row for each, with its position in that file and its keys; ``bands.npy``
has the keys that find near duplicates. Texts are only read when needed.

Shards are planned from the keys of the documents alone, so each can be written on any machine, with
the same bytes.

Leakage is the share of val's and test's word 13-grams that also occur in train, as for GPT-3
(Brown et al. 2020), or 26-grams of characters in scripts without spaces; two texts hardly ever
share one by chance. If there are too many to hold in memory, a sample is chosen by hash.
"""

import hashlib
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.documents import SPLITS, Document, Split, batches
from atlas.cleaning.statistics import Statistics
from atlas.cleaning.words import Hashes, WordHashes, concatenate, distinct, hash_words, ngrams
from atlas.params.schema import CleanParams

# A document's bytes in documents.jsonl, the key of its text, and its point (see split_point).
ROW = np.dtype([("offset", "<u8"), ("length", "<u4"), ("key", "<u8", (2,)), ("point", "<u8")])
DOCUMENTS, TABLE, BANDS = "documents.jsonl", "table.npy", "bands.npy"
MAX_OPEN_CHUNKS = 64

MAX_DEVIATION = 3.0  # factor between a split's share of the text and the one asked for
LOOK_AHEAD = 4096  # characters searched for a line end to cut after

MIN_SHARD, MAX_SHARD = 4 << 20, 64 << 20  # bytes; DVC pays for each file
TARGET_SHARDS = 64  # enough to keep many workers busy
BATCH = 1 << 21  # characters counted at once

NGRAM = 13  # words
NGRAM_CHARACTERS = 26  # in scripts without spaces, where two characters are about a word
MAX_NGRAMS = 1 << 18  # held in memory for val, and for test
FILTER_BITS = 22  # a table of 4 MB; MAX_NGRAMS for val and for test fill an eighth of it
BYTES_PER_WORD = 4  # an underestimate, so that the sample stays below MAX_NGRAMS


@dataclass(frozen=True)
class Chunk:
    """A finished chunk; ``first`` is the number of its first document in the corpus."""

    folder: Path
    first: int
    count: int

    def table(self) -> NDArray[Any]:
        """Load the rows of type ROW. (documents,)."""
        return np.asarray(np.load(self.folder / TABLE))

    def keys(self, bands: Sequence[int | None]) -> list[Hashes]:
        """Load the keys of some bands, (documents, 1), or of the texts (None), (documents, 2)."""
        if None in bands:
            return [np.asarray(self.table()["key"])]
        stored = np.load(self.folder / BANDS, mmap_mode="r")
        return [np.array(stored[band, :, None]) for band in bands]

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


def split_point(key: bytes, seed: int) -> int:
    """Map the key of a text to a point below 2**64, which decides the split of its document.

    Equal texts have the same point, so exact copies never leak, and documents added later don't
    move the others.
    """
    seeded = hashlib.blake2b(key, digest_size=8, salt=seed.to_bytes(16, "little"))
    return int.from_bytes(seeded.digest(), "little")


@dataclass(frozen=True)
class Splitting:
    """How to split a corpus: whole documents by their points, or each document by position."""

    by: Literal["document", "position"]
    test_end: int  # points below are for test
    val_end: int  # points below are for val, the rest for train

    @classmethod
    def choose(
        cls, corpus: "StagedCorpus", excluded: NDArray[np.int64], clean: CleanParams
    ) -> "Splitting":
        """Choose the way to split a corpus without its (sorted) excluded documents.

        ``auto`` splits by document if each split then gets roughly its share of the text.
        """
        tables = [chunk.table() for chunk in corpus.chunks]
        points = np.delete(np.concatenate([table["point"] for table in tables]), excluded)
        sizes = np.delete(np.concatenate([table["length"] for table in tables]), excluded)
        by_document = cls("document", *_limits(points, clean))
        fits = by_document._fits(points, sizes, clean)
        if clean.split_by == "position" or (clean.split_by == "auto" and not fits):
            return replace(by_document, by="position")
        return by_document

    def split_of(self, points: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Return the index in SPLITS of documents with these points. (documents,)."""
        is_test, is_val_or_test = points < self.test_end, points < self.val_end
        found: NDArray[np.intp] = np.where(is_test, 2, np.where(is_val_or_test, 1, 0))
        return found

    def _fits(
        self, points: NDArray[np.uint64], sizes: NDArray[np.uint32], clean: CleanParams
    ) -> bool:
        wanted = np.array([1 - clean.val - clean.test, clean.val, clean.test])
        found = np.bincount(self.split_of(points), sizes, minlength=len(SPLITS)) / sizes.sum()
        fits = (wanted <= MAX_DEVIATION * found) & (found <= MAX_DEVIATION * wanted)
        return bool(fits.all())


def _limits(points: NDArray[np.uint64], clean: CleanParams) -> tuple[int, int]:
    """Return the ends of test and val; each gets a document, also if chance would give it none."""
    distinct_points = np.unique(points)
    shares = [share for share in (clean.test, clean.val) if share]
    test_end, val_end = int(clean.test * 2**64), int((clean.test + clean.val) * 2**64)
    if len(distinct_points) > len(shares):
        if clean.test:
            test_end = max(test_end, int(distinct_points[0]) + 1)
        first_after_test = distinct_points[np.searchsorted(distinct_points, np.uint64(test_end))]
        val_end = max(val_end, int(first_after_test) + 1)
    return test_end, val_end


def cut_document(document: Document, clean: CleanParams) -> Iterator[tuple[Split, Document]]:
    """Cut a document in three: first train, then val, then test.

    Each cut moves to the next line start if one is nearby. The joined parts are the document.
    """
    text = document.text
    val, test = round(len(text) * clean.val), round(len(text) * clean.test)
    first = _line_start(text, len(text) - val - test, val)
    second = max(first, _line_start(text, len(text) - test, test))
    parts = (text[:first], text[first:second], text[second:])
    for split, part in zip(SPLITS, parts, strict=True):
        if part:
            # Messages would carry the whole conversation into each split.
            cut = replace(document, id=f"{document.id}#{split}", text=part, messages=None)
            yield split, cut


def _line_start(text: str, position: int, part: int) -> int:
    """Find a line start or a space after a position, within the first half of a part."""
    if position <= 0 or position >= len(text) or text[position - 1] == "\n":
        return position
    for separator in ("\n", " "):
        found = text.find(separator, position, position + min(LOOK_AHEAD, part // 2))
        if found >= 0:
            return found + 1
    return position


def sample_modulus(size: int) -> int:
    """Choose a sample for a split of ``size`` bytes: n-grams whose hash is divisible by this."""
    return 1 << max(0, (size // BYTES_PER_WORD - 1) // MAX_NGRAMS).bit_length()


def sample_ngrams(words: WordHashes, modulus: int) -> Hashes:
    """Return the sampled n-grams of some texts. (ngrams,)."""
    found = ngrams(words, NGRAM, NGRAM_CHARACTERS).hashes
    sampled: Hashes = found[found & np.uint64(modulus - 1) == 0]
    return sampled


def high_bits(hashes: Hashes) -> NDArray[np.intp]:
    """Return the first FILTER_BITS bits of some hashes; sampling makes the last ones equal."""
    return (hashes >> np.uint64(64 - FILTER_BITS)).astype(np.intp)


def hash_filter(hashes: Hashes) -> NDArray[np.bool_]:
    """Return a table by high bits that is False where no hash has them."""
    table = np.zeros(1 << FILTER_BITS, bool)
    table[high_bits(hashes)] = True
    return table


def mark_seen(
    held_out: Hashes, table: NDArray[np.bool_], training: Hashes, seen: NDArray[np.bool_]
) -> None:
    """Mark the held-out n-grams (sorted, distinct) that occur in the training text. (ngrams,).

    ``table``, the filter of ``held_out``, saves most of the slow binary searches.
    """
    training = training[table[high_bits(training)]]
    if len(training):
        index = np.minimum(np.searchsorted(held_out, training), len(held_out) - 1)
        seen[index[held_out[index] == training]] = True


@dataclass(frozen=True)
class Shard:
    """A shard to write: documents of some chunks, by their indices in the chunk."""

    split: Split
    number: int
    bytes: int  # approximate if documents are cut
    documents: tuple[tuple[Chunk, NDArray[np.intp]], ...]


def plan_shards(
    corpus: StagedCorpus,
    excluded: NDArray[np.int64],
    clean: CleanParams,
    splitting: Splitting,
    split: Split,
) -> list[Shard]:
    """Divide the documents of a split into shards, without the (sorted) excluded ones."""
    target = min(max(corpus.size() // TARGET_SHARDS, MIN_SHARD), MAX_SHARD)
    shares = {"train": 1 - clean.val - clean.test, "val": clean.val, "test": clean.test}
    share = shares[split] if splitting.by == "position" else 1.0  # of each document
    shards: list[Shard] = []
    documents: list[tuple[Chunk, NDArray[np.intp]]] = []
    size = 0
    for chunk in corpus.chunks if share else ():
        table = chunk.table()
        selected = np.ones(chunk.count, bool)
        if splitting.by == "document":
            selected = splitting.split_of(table["point"]) == SPLITS.index(split)
        first, last = np.searchsorted(excluded, [chunk.first, chunk.first + chunk.count])
        selected[excluded[first:last] - chunk.first] = False
        indices = np.flatnonzero(selected)
        ends = size + np.cumsum(table["length"][indices] * share).astype(np.int64)
        while len(indices):
            count = min(int(np.searchsorted(ends, target)) + 1, len(indices))
            documents.append((chunk, indices[:count]))
            size = int(ends[count - 1])
            indices, ends = indices[count:], ends[count:]
            if size >= target:
                shards.append(Shard(split, len(shards), size, tuple(documents)))
                documents, ends, size = [], ends - size, 0
    if documents:
        shards.append(Shard(split, len(shards), size, tuple(documents)))
    return shards


def write_shard(
    shard: Shard, folder: Path, clean: CleanParams, modulus: int, held_out: Hashes | None = None
) -> tuple[Statistics, Hashes, NDArray[np.bool_]]:
    """Write a shard; return its statistics, its n-grams, and the held-out ones that occur in it.

    Its own n-grams are collected only if ``held_out`` is None; ``modulus`` samples both.
    """
    statistics = Statistics()
    seen = np.zeros(0 if held_out is None else len(held_out), bool)
    table = hash_filter(concatenate([]) if held_out is None else held_out)
    samples: list[Hashes] = []
    path = folder / shard.split / f"{shard.number:05d}.jsonl"
    with path.open("wb") as file:
        for batch in batches(_documents(shard, clean), BATCH):
            file.writelines(document.to_line() for document in batch)
            texts = [document.text for document in batch]
            words = hash_words(texts)
            statistics.add(words)
            statistics.add_corpora([document.corpus for document in batch], texts, words)
            sample = sample_ngrams(words, modulus)
            if held_out is None:
                samples.append(distinct(sample))
            else:
                mark_seen(held_out, table, sample, seen)
    if not statistics.documents:
        path.unlink()  # all documents were too short to give this split a part
    statistics.drop_rare_spellings()
    return statistics, distinct(concatenate(samples)), seen


def _documents(shard: Shard, clean: CleanParams) -> Iterator[Document]:
    for chunk, indices in shard.documents:
        for document in chunk.documents(indices):
            if clean.split_by == "document":
                yield document
            else:
                parts = cut_document(document, clean)
                yield from (part for split, part in parts if split == shard.split)
