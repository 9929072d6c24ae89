"""Split documents into train, val and test, write the shards, and measure leakage.

A shard is planned from the keys of the documents alone, so shards can be written separately, and
their bytes don't depend on where.

Leakage is the share of val's and test's word 13-grams that occur in train as well, as for GPT-3
(Brown et al. 2020); two texts hardly ever share one by chance. Where there are too many to hold in
memory, a sample is chosen by hash.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.documents import SPLITS, Document, Split
from atlas.cleaning.staging import Chunk, StagedCorpus
from atlas.cleaning.statistics import Statistics
from atlas.cleaning.words import (
    Hashes,
    TextHashes,
    concatenate,
    distinct,
    hash_words,
    ngrams,
)
from atlas.params.schema import CleanParams

AUTO_DOCUMENTS = 100  # from here on, `auto` splits by document
LOOK_AHEAD = 4096  # characters searched for a line end to cut after

MIN_SHARD, MAX_SHARD = 4 << 20, 64 << 20  # bytes; DVC pays for each file
TARGET_SHARDS = 64  # enough to keep many workers busy
BATCH = 1 << 21  # characters counted at once

NGRAM = 13  # words
MAX_NGRAMS = 1 << 18  # held in memory for val, and for test
BYTES_PER_WORD = 4  # an underestimate, so that the sample stays below MAX_NGRAMS

SplitBy = Literal["document", "position"]


def resolve_split_by(clean: CleanParams, documents: int) -> SplitBy:
    """Replace "auto" by the way to split this number of documents."""
    if clean.split_by == "auto":
        return "position" if documents < AUTO_DOCUMENTS else "document"
    return clean.split_by


def split_of(key: bytes, clean: CleanParams) -> Split:
    """Choose the split of a whole document from the key of its text and the seed.

    Equal texts are in the same split, so exact copies never leak, and documents added later don't
    move the others.
    """
    seeded = hashlib.blake2b(key, digest_size=8, salt=clean.seed.to_bytes(16, "little"))
    point = int.from_bytes(seeded.digest(), "little") / 2**64
    if point < clean.test:
        return "test"
    return "val" if point < clean.test + clean.val else "train"


def cut_document(document: Document, clean: CleanParams) -> Iterator[tuple[Split, Document]]:
    """Cut a document in three: first train, then val, then test.

    Each cut moves to the next line start if there is one nearby. Joining the parts gives the
    document.
    """
    text = document.text
    first = _line_start(text, round(len(text) * (1 - clean.val - clean.test)))
    second = max(first, _line_start(text, round(len(text) * (1 - clean.test))))
    parts = (text[:first], text[first:second], text[second:])
    for split, part in zip(SPLITS, parts, strict=True):
        if part:
            yield split, Document(f"{document.id}#{split}", document.source, part)


def _line_start(text: str, position: int) -> int:
    if position <= 0 or position >= len(text) or text[position - 1] == "\n":
        return position
    for separator in ("\n", " "):
        found = text.find(separator, position, position + LOOK_AHEAD)
        if found >= 0:
            return found + 1
    return position


def sample_modulus(size: int) -> int:
    """Choose a sample for a split of ``size`` bytes: n-grams whose hash is divisible by this."""
    return 1 << max(0, (size // BYTES_PER_WORD - 1) // MAX_NGRAMS).bit_length()


def sample_ngrams(words: TextHashes, modulus: int) -> Hashes:
    """Return the sampled n-grams of some texts. (ngrams,)."""
    found = ngrams(words, NGRAM).hashes
    sampled: Hashes = found[found % np.uint64(modulus) == 0]
    return sampled


def mark_seen(held_out: Hashes, training: Hashes, seen: NDArray[np.bool_]) -> None:
    """Mark the held-out n-grams (sorted, distinct) that occur in the training text. (ngrams,)."""
    if len(held_out):
        index = np.minimum(np.searchsorted(held_out, training), len(held_out) - 1)
        seen[index[held_out[index] == training]] = True


@dataclass(frozen=True)
class Slice:
    """Documents ``first`` to ``last`` of a chunk, without the excluded ones (by number)."""

    chunk: Chunk
    first: int
    last: int
    excluded: NDArray[np.int64]


ShardPlan = tuple[int, tuple[Slice, ...]]  # bytes, documents


@dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
        path: of the shard.
        split: selects documents, or parts of documents.
        split_by: split by whole documents or by position in each.
        clean: shares of the splits.
        slices: documents to select from.
        modulus: of the n-gram sample, see ``sample_modulus``.
        held_out: n-grams to look for, sorted; None for shards of val and test.
    """

    path: Path
    split: Split
    split_by: SplitBy
    clean: CleanParams
    slices: tuple[Slice, ...]
    modulus: int
    held_out: Hashes | None


@dataclass
class ShardResult:
    """The contents of a written shard.

    Attributes:
        statistics: of its documents.
        ngrams: sample, sorted (val and test only).
        seen: which of the held-out n-grams occur in it (train only).
    """

    statistics: Statistics
    ngrams: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))


def plan_shards(
    corpus: StagedCorpus,
    excluded: NDArray[np.int64],
    clean: CleanParams,
    split_by: SplitBy,
    split: Split,
) -> list[ShardPlan]:
    """Divide the documents of a split into shards.

    Args:
        corpus: all documents.
        excluded: sorted numbers of documents that belong to no split.
        clean: shares of the splits.
        split_by: split by whole documents or by position in each.
        split: the split to plan.

    Returns:
        For each shard its bytes (approximate if documents are cut) and its documents.
    """
    shards: list[ShardPlan] = []
    slices: list[Slice] = []
    size = 0
    target = min(max(corpus.size() // TARGET_SHARDS, MIN_SHARD), MAX_SHARD)
    share = _share(split, clean) if split_by == "position" else 1.0
    if not share:
        return []
    for chunk in corpus.chunks:
        table = chunk.table()
        gone = excluded[slice(*np.searchsorted(excluded, [chunk.first, chunk.first + chunk.count]))]
        selected = _selected(chunk, table, gone, split_by, split)
        ends = size + np.cumsum(np.where(selected, table["length"] * share, 0)).astype(np.int64)
        first = 0
        while first < chunk.count:
            last = first + int(np.searchsorted(ends[first:], target, side="left")) + 1
            last = min(last, chunk.count)
            slices.append(Slice(chunk, first, last, gone))
            size = int(ends[last - 1])
            if size >= target:
                shards.append((size, tuple(slices)))
                slices = []
                ends = ends - size
                size = 0
            first = last
    if slices and (size or split_by == "position"):
        shards.append((size, tuple(slices)))
    return shards


def _share(split: Split, clean: CleanParams) -> float:
    held_out = {"val": clean.val, "test": clean.test}
    return held_out.get(split, 1 - clean.val - clean.test)


def write_shard(task: ShardTask) -> ShardResult:
    """Write a shard and count its contents."""
    statistics = Statistics()
    held_out = task.held_out if task.held_out is not None else np.empty(0, np.uint64)
    seen = np.zeros(len(held_out), bool)
    samples: list[Hashes] = []
    with task.path.open("wb") as file:
        for texts in _write_batches(task, file):
            words = hash_words(texts)
            statistics.add(texts, words)
            sample = sample_ngrams(words, task.modulus)
            if task.held_out is None:
                samples.append(distinct(sample))
            else:
                mark_seen(held_out, sample, seen)
    if not statistics.documents:
        task.path.unlink()  # all documents were too short to give this split a part
    statistics.drop_rare_spellings()
    return ShardResult(statistics, distinct(concatenate(samples)), seen)


def _write_batches(task: ShardTask, file: BinaryIO) -> Iterator[list[str]]:
    """Write the documents and yield their texts in batches."""
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
    for each in task.slices:
        table = each.chunk.table()
        selected = _selected(each.chunk, table, each.excluded, task.split_by, task.split)
        selected[: each.first] = False
        selected[each.last :] = False
        for line in each.chunk.lines(table[selected]):
            document = Document.from_line(line)
            if task.split_by == "document":
                yield line, document
                continue
            for split, part in cut_document(document, task.clean):
                if split == task.split:
                    yield part.to_line(), part


def _selected(
    chunk: Chunk,
    table: NDArray[Any],
    excluded: NDArray[np.int64],
    split_by: SplitBy,
    split: Split,
) -> NDArray[np.bool_]:
    """Mark the documents of a chunk that belong to a split, in whole or in part. (documents,)."""
    selected: NDArray[np.bool_] = np.ones(chunk.count, bool)
    if split_by == "document":
        selected = table["split"] == SPLITS.index(split)
    selected[excluded - chunk.first] = False
    return selected
