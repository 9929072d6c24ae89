"""Which documents are copies of others: exact ones by their text, near ones by their words.

Memory stays bounded whatever the size of the corpus: documents are compared by keys, and the
keys in partitions that each hold so many. Of each group of copies the first document stays.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.shards import Parts
from atlas.cleaning.sketches import NO_KEY, Bands, word_runs
from atlas.cleaning.words import Hashes, jaccard
from atlas.pipeline.parallel import in_order

PARTITION = 1 << 22  # documents whose keys are compared at once
NEIGHBOURS = 3  # of those before it with the same key, and the first, a document is compared with
TASKS = 64  # in which pairs are compared, if there are so many groups of them
FEWEST_PAIRS = 16  # in a task
MOST_PAIRS = 1 << 16  # in a task, but for a group that is larger
IN_MEMORY = 16  # documents, the longest of which take 12 MB each

Numbers = NDArray[np.int64]
Pairs = NDArray[np.int64]  # (pairs, 2), the smaller number first

# A document that is left out: its number, that of one it is a copy of, their Jaccard index
# (1 for equal texts), and whether the texts are equal.
COPY = np.dtype([("number", "<i8"), ("of", "<i8"), ("similarity", "<f8"), ("exact", "?")])
Copies = NDArray[Any]  # of COPY, by number

# Two documents that are alike, and their Jaccard index.
EDGE = np.dtype([("pair", "<i8", (2,)), ("similarity", "<f8")])
Edges = NDArray[Any]  # of EDGE


@dataclass(frozen=True)
class _Partition:
    """Documents whose key, divided by ``count``, leaves ``number``, in each of some bands."""

    parts: Parts
    number: int
    count: int
    bands: range = range(0)
    left_out: Numbers | None = None


@dataclass(frozen=True)
class _Comparison:
    """Pairs that may be copies, those that hang together in a row, and how alike they must be."""

    parts: Parts
    pairs: Pairs
    similarity: float


def exact_copies(parts: Parts) -> Copies:
    """Every document with the text of one before it."""
    count = _partitions(parts)
    tasks = [_Partition(parts, number, count) for number in range(count)]
    pairs = np.concatenate([_NO_PAIRS, *in_order(_equal_texts, tasks, "exact duplicates")])
    copies = np.zeros(len(pairs), COPY)
    copies["of"], copies["number"] = pairs.T
    copies["similarity"], copies["exact"] = 1, True
    return np.sort(copies, order="number")


def near_copies(parts: Parts, similarity: float, left_out: Numbers) -> Copies:
    """Every document that is as alike to another as ``similarity``, or to one that is, and so on.

    The first of each such group is not among them. ``left_out`` are not looked at.
    """
    count, bands = _partitions(parts), Bands.of(similarity).count
    together = max(1, PARTITION // max(1, len(parts)))
    tasks = [
        _Partition(parts, number, count, range(first, min(first + together, bands)), left_out)
        for first in range(0, bands, together)
        for number in range(count)
    ]
    pairs = _union(in_order(_candidates, tasks, "candidates for near duplicates"))
    comparisons = [_Comparison(parts, batch, similarity) for batch in _batches(pairs)]
    edges = [np.empty(0, EDGE), *in_order(_compare, comparisons, "near duplicates")]
    return _without_the_first(np.concatenate(edges))


_NO_PAIRS: Pairs = np.empty((0, 2), np.int64)


def _partitions(parts: Parts) -> int:
    return -(-len(parts) // PARTITION)


def _equal_texts(task: _Partition) -> Pairs:
    keys, numbers = [], []
    for part in task.parts.parts:
        exact = part.table()["exact"]
        chosen = np.flatnonzero(exact[:, 0] % np.uint64(task.count) == task.number)
        keys.append(exact[chosen])
        numbers.append(chosen + part.first)
    key, number = np.concatenate(keys), np.concatenate(numbers)
    order = np.lexsort((number, key[:, 1], key[:, 0]))
    key, number = key[order], number[order]
    same = np.concatenate(([False], (key[1:] == key[:-1]).all(axis=1)))[: len(key)]
    firsts = _first_of_run(~same)
    return np.stack((number[firsts[same]], number[same]), axis=1)


def _candidates(task: _Partition) -> Pairs:
    """Pairs of documents that agree in a band."""
    pairs = [_agreeing(task, band) for band in task.bands]
    return np.unique(np.concatenate(pairs), axis=0)


def _agreeing(task: _Partition, number_of_band: int) -> Pairs:
    keys, numbers = [], []
    for part in task.parts.parts:
        band = part.band(number_of_band)
        chosen = np.flatnonzero((band % np.uint64(task.count) == task.number) & (band != NO_KEY))
        keys.append(band[chosen])
        numbers.append(chosen + part.first)
    key, number = np.concatenate(keys), np.concatenate(numbers)
    kept = ~np.isin(number, [] if task.left_out is None else task.left_out)
    key, number = key[kept], number[kept]
    order = np.lexsort((number, key))
    key, number = key[order], number[order]
    firsts = _first_of_run(np.concatenate(([True], key[1:] != key[:-1]))[: len(key)])
    place = np.arange(len(number))
    pairs = [_NO_PAIRS]
    for before in [firsts, *(place - distance for distance in range(1, NEIGHBOURS + 1))]:
        valid = (before >= firsts) & (before < place)
        pairs.append(np.stack((number[before[valid]], number[valid]), axis=1))
    return np.concatenate(pairs)


def _first_of_run(starts: NDArray[np.bool_]) -> Numbers:
    """For each place the place at which its run of equal keys starts."""
    places = np.where(starts, np.arange(len(starts)), 0)
    return np.maximum.accumulate(places) if len(places) else places


def _union(found: Iterable[Pairs]) -> Pairs:
    """All pairs, each once, sorted. They are sorted anew only when they may have doubled."""
    pairs, waiting = _NO_PAIRS, [_NO_PAIRS]
    for more in found:
        waiting.append(more)
        if sum(map(len, waiting)) > len(pairs):
            pairs, waiting = np.unique(np.concatenate((pairs, *waiting)), axis=0), [_NO_PAIRS]
    return np.unique(np.concatenate((pairs, *waiting)), axis=0)


def _groups(pairs: Pairs) -> tuple[Numbers, Numbers, Numbers]:
    """What hangs together.

    Returns:
        The documents of all pairs, sorted; the group of each of them; the group of each pair.
        Groups are numbered by their first documents.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    numbers, places = np.unique(pairs, return_inverse=True)
    first, second = places.reshape(-1, 2).T
    links = coo_array((np.ones(len(pairs), bool), (first, second)), (len(numbers),) * 2)
    _, found = connected_components(links, directed=False)
    _, firsts, group = np.unique(found, return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(firsts))[group]
    return numbers, group, group[first]


def _batches(pairs: Pairs) -> Iterator[Pairs]:
    """Pairs for one task each; those that hang together are in the same one, in a row."""
    if not len(pairs):
        return
    _, _, group = _groups(pairs)
    order = np.argsort(group, kind="stable")
    pairs, group = pairs[order], group[order]
    enough = min(max(FEWEST_PAIRS, -(-len(pairs) // TASKS)), MOST_PAIRS)
    start = 0
    while start < len(pairs):
        last = min(start + enough, len(pairs)) - 1
        stop = int(np.searchsorted(group, group[last], side="right"))
        yield pairs[start:stop]
        start = stop


def _compare(task: _Comparison) -> Edges:
    """The pairs that are alike; those that are connected by others already are not compared."""
    from scipy.cluster.hierarchy import DisjointSet

    @lru_cache(maxsize=IN_MEMORY)
    def word_runs_of(number: int) -> Hashes:
        return word_runs(task.parts.document(number).text)

    alike = []
    connected = DisjointSet(np.unique(task.pairs).tolist())
    for first, second in task.pairs.tolist():
        if connected.connected(first, second):
            continue
        similarity = jaccard(word_runs_of(first), word_runs_of(second))
        if similarity >= task.similarity:
            connected.merge(first, second)
            alike.append(((first, second), similarity))
    return np.array(alike, EDGE)


def _without_the_first(edges: Edges) -> Copies:
    """Every document but the first of each connected group, a copy of the one most like it."""
    numbers, group, _ = _groups(edges["pair"])
    _, firsts = np.unique(group, return_index=True)
    number, of = np.concatenate((edges["pair"], edges["pair"][:, ::-1])).T
    similarity = np.tile(edges["similarity"], 2)
    order = np.lexsort((of, -similarity, number))
    nearest = order[np.unique(number[order], return_index=True)[1]]
    copies = np.zeros(len(numbers), COPY)
    copies["number"], copies["of"] = numbers, of[nearest]
    copies["similarity"] = similarity[nearest]
    return np.delete(copies, firsts)
