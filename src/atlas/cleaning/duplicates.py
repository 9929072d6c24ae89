"""Find exact duplicates by text and near duplicates by shingles.

Exact duplicates have the same text key. Near duplicates have similar sets of shingles: their
Jaccard index, the share of all their shingles that occur in both, reaches a threshold. Each value
of two MinHash signatures agrees with exactly that probability (Broder 1997). A signature is cut
into bands of ``rows`` values; documents that agree in a whole band are candidates
(locality-sensitive hashing, Indyk and Motwani 1998) and are then compared exactly. Rensa computes
the signatures.

In alphabets such as Latin a shingle is five words. Other scripts write a word with few letters
(Chinese, Korean), without spaces (Thai) or with its particles attached (Arabic, Hindi), and one
changed letter in 60 would spoil five of twelve shingles of words: the Jaccard index of such a copy
would be 0.4. There a shingle is six letters, vowel signs included, whatever spaces are between
them, and the index of the copy is 0.8. Six are enough to tell texts apart: different texts of
900 characters from a vocabulary of 80 words reach 0.12, two books of 3 million letters 0.4.

Memory is bounded whatever the size of the corpus: documents are compared by keys, and the keys in
partitions of limited size. The first document of each group of duplicates is kept.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from atlas.cleaning.splits import StagedCorpus
from atlas.cleaning.words import MULTIPLIER, Hashes, distinct, hash_shingles, jaccard
from atlas.params.schema import CleanParams
from atlas.pipeline.parallel import in_order

WORDS = 5  # per shingle in alphabets, as in dolma and datatrove
CHARACTERS = 6  # per shingle in other scripts
MAX_SIGNATURE = 128  # values per document
RECALL = 0.98  # share of pairs exactly at the threshold that are found; higher above it
HASH_BATCH = 1 << 20  # characters hashed at once
SEED = 1
NO_KEY = np.uint64(0)  # of documents shorter than an n-gram; only exact duplicates are found
TEXT_KEY = (None,)  # the kind of key that finds exact duplicates; bands find near ones

PARTITION = 1 << 22  # documents whose keys are compared at once
NEIGHBORS = 3  # preceding documents with the same key that each document is compared with
TARGET_TASKS = 64  # for comparing pairs
MIN_PAIRS = 16  # per task
MAX_PAIRS = 1 << 16  # per task, unless one group has more
MAX_CACHED = 16  # documents; the largest take 12 MB each

Numbers = NDArray[np.int64]
Pairs = NDArray[np.int64]  # (pairs, 2), the smaller number first

# A document, the one that it duplicates, their Jaccard index (1 for equal texts), and whether the
# texts are equal.
DUPLICATE = np.dtype([("number", "<i8"), ("original", "<i8"), ("jaccard", "<f8"), ("exact", "?")])
Duplicates = NDArray[Any]  # of DUPLICATE, sorted by number

# Two similar documents and their Jaccard index.
EDGE = np.dtype([("pair", "<i8", (2,)), ("jaccard", "<f8")])
Edges = NDArray[Any]  # of EDGE

_NO_PAIRS: Pairs = np.empty((0, 2), np.int64)


def text_key(text: str) -> bytes:
    """Hash a text to 16 bytes; different texts have different keys."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def choose_bands(threshold: float) -> tuple[int, int]:
    """Choose the number of bands of a signature, and the rows of each.

    They are the longest bands (fewest candidates) that still reach RECALL: a pair with Jaccard
    index s agrees in one band of r rows with probability s**r, and in at least one of b bands with
    probability 1 - (1 - s**r)**b.
    """
    for rows in range(MAX_SIGNATURE - 1, 1, -1):
        if 1 - (1 - threshold**rows) ** (MAX_SIGNATURE // rows) >= RECALL:
            return MAX_SIGNATURE // rows, rows
    return MAX_SIGNATURE, 1


def band_keys(texts: Sequence[str], threshold: float) -> Hashes:
    """Compute the band keys of some documents, (bands, documents)."""
    bands, rows = choose_bands(threshold)
    found = hash_shingles(texts, WORDS, CHARACTERS)
    offsets = [0, *found.ends.tolist()]
    hashes, length = found.hashes, bands * rows
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, length, SEED)
    signatures = np.array(matrix.to_rows(), np.uint64).reshape(len(texts), bands, rows)
    keys = np.zeros(signatures.shape[:2], np.uint64)
    for row in range(rows):
        keys = keys * MULTIPLIER + signatures[:, :, row] + np.uint64(1)
    keys[found.counts == 0] = NO_KEY
    return np.ascontiguousarray(keys.T)


def find_duplicates(corpus: StagedCorpus, clean: CleanParams) -> Duplicates:
    """Find the duplicates that ``clean.duplicates`` asks for."""
    if clean.duplicates is None:
        return np.empty(0, DUPLICATE)
    duplicates = exact_duplicates(corpus)
    if clean.duplicates == "near":
        near = near_duplicates(corpus, clean.jaccard_threshold, duplicates["number"])
        duplicates = np.sort(np.concatenate((duplicates, near)), order="number")
    return duplicates


def exact_duplicates(corpus: StagedCorpus) -> Duplicates:
    """Find every document whose text equals an earlier one."""
    tasks = [(partition, TEXT_KEY) for partition in range(_partitions(corpus))]
    find = partial(_candidates, corpus=corpus, excluded=np.empty(0, np.int64), neighbors=0)
    pairs = np.concatenate([_NO_PAIRS, *in_order(find, tasks, "exact duplicates")])
    duplicates = np.zeros(len(pairs), DUPLICATE)
    duplicates["original"], duplicates["number"] = pairs.T
    duplicates["jaccard"], duplicates["exact"] = 1, True
    return np.sort(duplicates, order="number")


def near_duplicates(corpus: StagedCorpus, threshold: float, excluded: Numbers) -> Duplicates:
    """Find near duplicates.

    Pairs with a Jaccard index of at least ``threshold`` are linked; every document of a linked
    group except the first is a duplicate. ``excluded`` documents are ignored.
    """
    bands, _ = choose_bands(threshold)
    bands_per_task = max(1, PARTITION // max(1, len(corpus)))
    tasks = [
        (partition, range(first, min(first + bands_per_task, bands)))
        for first in range(0, bands, bands_per_task)
        for partition in range(_partitions(corpus))
    ]
    find = partial(_candidates, corpus=corpus, excluded=excluded, neighbors=NEIGHBORS)
    pairs = _merge(in_order(find, tasks, "candidates for near duplicates"))
    compare = partial(_compare, corpus=corpus, threshold=threshold)
    edges = in_order(compare, list(_batches(pairs)), "near duplicates")
    return _all_but_first(np.concatenate([np.empty(0, EDGE), *edges]))


def _partitions(corpus: StagedCorpus) -> int:
    """Number of partitions of about PARTITION documents; a key modulo this number selects one."""
    return -(-len(corpus) // PARTITION)


def _candidates(
    task: tuple[int, Sequence[int | None]], corpus: StagedCorpus, excluded: Numbers, neighbors: int
) -> Pairs:
    """Pair the documents of a partition that have at least one of these keys in common."""
    partition, kinds = task
    count = np.uint64(_partitions(corpus))
    keys: list[list[Hashes]] = [[] for _ in kinds]
    numbers: list[list[Numbers]] = [[] for _ in kinds]
    for chunk in corpus.chunks:
        for place, key in enumerate(chunk.keys(kinds)):
            in_partition = key[:, 0] % count == partition
            chosen = np.flatnonzero(in_partition & (key != NO_KEY).any(axis=1))
            keys[place].append(key[chosen])
            numbers[place].append(chosen + chunk.first)
    pairs = [_NO_PAIRS]
    for each, found in zip(keys, numbers, strict=True):
        number = np.concatenate(found)
        kept = ~np.isin(number, excluded)
        pairs.append(_equal_keys(np.concatenate(each)[kept], number[kept], neighbors))
    return np.unique(np.concatenate(pairs), axis=0)


def _equal_keys(keys: Hashes, numbers: Numbers, neighbors: int) -> Pairs:
    """Pair documents that have the same key; ``keys`` are (documents, columns).

    Each is paired with the first document of its key and with the ``neighbors`` before it.
    """
    order = np.lexsort((numbers, *keys.T[::-1]))
    keys, numbers = keys[order], numbers[order]
    index = np.arange(len(numbers))
    starts = np.concatenate(([True], (keys[1:] != keys[:-1]).any(axis=1)))[: len(numbers)]
    firsts = np.maximum.accumulate(np.where(starts, index, 0))
    pairs = [_NO_PAIRS]
    for earlier in [firsts, *(index - distance for distance in range(1, neighbors + 1))]:
        valid = (earlier >= firsts) & (earlier < index)
        pairs.append(np.stack((numbers[earlier[valid]], numbers[valid]), axis=1))
    return np.concatenate(pairs)


def _merge(batches: Iterable[Pairs]) -> Pairs:
    """Merge batches into sorted distinct pairs; sort only when their number may have doubled."""
    pairs, pending = _NO_PAIRS, [_NO_PAIRS]
    for batch in batches:
        pending.append(batch)
        if sum(map(len, pending)) > len(pairs):
            pairs, pending = np.unique(np.concatenate((pairs, *pending)), axis=0), [_NO_PAIRS]
    return np.unique(np.concatenate((pairs, *pending)), axis=0)


def _groups(pairs: Pairs) -> tuple[Numbers, Numbers, Numbers]:
    """Find the groups of connected documents, in the order of their first documents.

    Return the documents of all pairs, sorted, with the group of each, and the group of each pair.
    """
    numbers, indices = np.unique(pairs, return_inverse=True)
    first, second = indices.reshape(-1, 2).T
    # Every document ends up with the smallest index of its group: each round links the root of
    # one end of a pair to the smaller root of the other end, then shortens all paths to the roots.
    root = np.arange(len(numbers))
    while len(linked := np.flatnonzero(root[first] != root[second])):
        ends = root[first[linked]], root[second[linked]]
        np.minimum.at(root, np.maximum(*ends), np.minimum(*ends))
        while not np.array_equal(shorter := root[root], root):
            root = shorter
    _, group = np.unique(root, return_inverse=True)
    return numbers, group, group[first]


def _batches(pairs: Pairs) -> Iterator[Pairs]:
    """Divide pairs into tasks, each with whole groups in order."""
    if not len(pairs):
        return
    _, _, group = _groups(pairs)
    order = np.argsort(group, kind="stable")
    pairs, group = pairs[order], group[order]
    size = min(max(MIN_PAIRS, -(-len(pairs) // TARGET_TASKS)), MAX_PAIRS)
    start = 0
    while start < len(pairs):
        last = min(start + size, len(pairs)) - 1
        stop = int(np.searchsorted(group, group[last], side="right"))
        yield pairs[start:stop]
        start = stop


def _compare(pairs: Pairs, corpus: StagedCorpus, threshold: float) -> Edges:
    """Compare pairs exactly, and skip those already connected through other pairs."""

    @lru_cache(maxsize=MAX_CACHED)
    def shingles(number: int) -> Hashes:
        text = corpus.document(number).text
        return distinct(hash_shingles([text], WORDS, CHARACTERS).hashes)

    parents: dict[int, int] = {}

    def root(number: int) -> int:
        while (parent := parents.get(number, number)) != number:
            parents[number] = parents.get(parent, parent)  # halve the path
            number = parent
        return number

    similar = []
    for first, second in pairs.tolist():
        if root(first) == root(second):
            continue
        index = jaccard(shingles(first), shingles(second))
        if index >= threshold:
            parents[root(second)] = root(first)
            similar.append(((first, second), index))
    return np.array(similar, EDGE)


def _all_but_first(edges: Edges) -> Duplicates:
    """Return every document of a group except the first, each with its nearest neighbor."""
    numbers, group, _ = _groups(edges["pair"])
    _, firsts = np.unique(group, return_index=True)
    number, neighbor = np.concatenate((edges["pair"], edges["pair"][:, ::-1])).T
    index = np.tile(edges["jaccard"], 2)
    order = np.lexsort((neighbor, -index, number))
    nearest = order[np.unique(number[order], return_index=True)[1]]
    duplicates = np.zeros(len(numbers), DUPLICATE)
    duplicates["number"], duplicates["original"] = numbers, neighbor[nearest]
    duplicates["jaccard"] = index[nearest]
    return np.delete(duplicates, firsts)
