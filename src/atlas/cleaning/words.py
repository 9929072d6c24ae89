r"""Words and runs of words as 64-bit hashes: what duplicates, leaks and word counts are found by.

A word is a run of letters, digits and underscores, in lower case: ``re.findall(r"\w+",
text.lower())``. The hashes of a text are computed together in NumPy, some 60 MB a second, where
a Python string for each run of five words would allow 8.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
WORD = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")
NOT_ASCII_NOT_WORD = re.compile(r"[^\w\x00-\x7f]+")
FREQUENT_SIGNS = (
    "\u2019\u2018\u201c\u201d\u2014\u2013\u2026\u00a0"  # the quick way for most of English
)
SEGMENT = 1 << 17  # bytes hashed at once: the arrays stay in the cache of a core
LONGEST_WORD = 1 << 10  # bytes; of longer ones the parts may be hashed as words
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
JOIN = np.uint64(0xD6E8FEB86659FD93)


def _word_bytes() -> NDArray[np.bool_]:
    """Which bytes of UTF-8 belong to words, once other characters beyond ASCII are blanks."""
    return np.array(
        [byte >= 0x80 or chr(byte).isalnum() or byte == ord("_") for byte in range(256)]
    )


def _byte_values() -> Hashes:
    """A fixed random value for each byte, 0 for those outside words."""
    values = np.frombuffer(hashlib.shake_256(b"atlas words").digest(256 * 8), "<u8")
    return np.where(IS_WORD, values, 0).astype(np.uint64)


def _powers(base: int) -> Hashes:
    """``base**0, base**1, ...`` modulo 2**64."""
    powers = np.full(SEGMENT, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


IS_WORD = _word_bytes()
VALUES = _byte_values()
POWERS = _powers(BASE)
INVERSE_POWERS = _powers(pow(BASE, -1, 1 << 64))


@dataclass(frozen=True)
class Rows:
    """Hashes of several texts one after the other: those of text i end before ``ends[i]``."""

    hashes: Hashes
    ends: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many hashes each text has. (texts,)."""
        return np.diff(self.ends, prepend=0)


@dataclass(frozen=True)
class Words(Rows):
    """The words of several texts, with the place at which each starts in ``data`` (UTF-8)."""

    data: bytes
    starts: NDArray[np.int64]

    def __getitem__(self, number: int) -> str:
        """A word as text."""
        found = WORD.match(self.data, int(self.starts[number]))
        return found[0].decode(errors="replace") if found else ""


def hash_words(texts: Sequence[str]) -> Words:
    """A hash for each word of some texts, in order; equal words have equal hashes.

    A word is the polynomial of its bytes with coefficients ``VALUES``: each byte is weighted by
    its place in the segment, and the sum over a word divided by the weight of its first byte.
    """
    encoded = [_prepared(text) for text in texts]
    data = b"\n".join(encoded)
    hashes, starts = [], []
    for begin, segment in _segments(data):
        codes = np.frombuffer(segment, np.uint8)
        inside = IS_WORD[codes]
        first = np.flatnonzero(inside & ~np.concatenate(([False], inside[:-1])))
        if len(first):
            weighted = VALUES[codes]
            weighted *= POWERS[: len(codes)]
            sums = np.add.reduceat(weighted, first)
            hashes.append(_mixed(sums * INVERSE_POWERS[first]))
            starts.append(first + begin)
    text_ends = np.cumsum([len(text) + 1 for text in encoded], dtype=np.int64)
    all_starts = np.concatenate(starts) if starts else np.empty(0, np.int64)
    ends = np.searchsorted(all_starts, text_ends)
    return Words(joined(hashes), ends, data, all_starts)


def runs(words: Rows, length: int) -> Rows:
    """A hash for each run of ``length`` words within a text; a shorter text has none."""
    total = len(words.hashes) - length + 1
    counts = np.maximum(words.counts - length + 1, 0)
    if total <= 0 or not counts.any():
        return Rows(words.hashes[:0], np.zeros_like(words.ends))
    hashes = words.hashes[:total].copy()
    for offset in range(1, length):
        hashes *= JOIN
        hashes += words.hashes[offset : offset + total]
    crossing = np.zeros(len(words.hashes) + 1, np.int64)
    np.add.at(crossing, words.ends - words.counts, 1)
    np.add.at(crossing, words.ends - words.counts + counts, -1)
    within = np.cumsum(crossing)[:total] > 0
    return Rows(_mixed(hashes[within]), np.cumsum(counts))


def distinct(hashes: Hashes) -> Hashes:
    """Sorted, each once."""
    ordered = np.sort(hashes)
    if len(ordered) < 2:
        return ordered
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]


def jaccard(first: Hashes, second: Hashes) -> float:
    """The share of two sets (as `distinct` gives them) that is in both: 0 to 1."""
    total = len(first) + len(second)
    merged = np.sort(np.concatenate((first, second)), kind="stable")  # of two sorted runs: quick
    both = int((merged[1:] == merged[:-1]).sum())
    return both / (total - both) if total else 0.0


def joined(parts: list[Hashes]) -> Hashes:
    """Several arrays one after the other."""
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _prepared(text: str) -> bytes:
    lowered = text.lower()
    for sign in FREQUENT_SIGNS if not lowered.isascii() else ():
        lowered = lowered.replace(sign, " ")
    if not lowered.isascii():
        lowered = NOT_ASCII_NOT_WORD.sub(" ", lowered)
    return lowered.encode(errors="replace")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        end = min(start + SEGMENT, len(data))
        if end < len(data):
            tail = np.frombuffer(data[end - LONGEST_WORD : end], np.uint8)
            outside = np.flatnonzero(~IS_WORD[tail])
            if len(outside):
                end += int(outside[-1]) + 1 - LONGEST_WORD
        yield start, data[start:end]
        start = end


def _mixed(hashes: Hashes) -> Hashes:
    """Spreads every bit over all others (the finaliser of splitmix64)."""
    hashes = hashes ^ (hashes >> np.uint64(30))
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes
