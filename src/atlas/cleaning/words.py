r"""Hash words and word n-grams to 64 bits, to find duplicates and leakage and to count words.

A word is a run of letters, digits and underscores in lower case: ``re.findall(r"\w+",
text.lower())``. NumPy hashes about 60 MB/s, where a Python string per 5-gram would allow 8.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
WORD = re.compile(rb"[0-9A-Za-z_\x80-\xff]+")
NON_ASCII_NON_WORD = re.compile(r"[^\w\x00-\x7f]+")
# A fast path for most English text.
COMMON_PUNCTUATION = "\u2019\u2018\u201c\u201d\u2014\u2013\u2026\u00a0"
SEGMENT = 1 << 17  # bytes hashed at once, so that the arrays fit in the CPU cache
MAX_WORD = 1 << 10  # bytes; longer words can be hashed in parts
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)  # of hashes of hashes


def _powers(base: int) -> Hashes:
    """Return ``base**0, base**1, ...`` modulo 2**64."""
    powers = np.full(SEGMENT, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


# The UTF-8 bytes of word characters, once other non-ASCII characters are spaces; each has a fixed
# random value, other bytes have 0.
IS_WORD = np.array([bool(WORD.match(bytes([byte]))) for byte in range(256)])
_RANDOM = np.frombuffer(hashlib.shake_256(b"atlas words").digest(256 * 8), "<u8")
VALUES = np.where(IS_WORD, _RANDOM, 0).astype(np.uint64)
POWERS = _powers(BASE)
INVERSE_POWERS = _powers(pow(BASE, -1, 1 << 64))


@dataclass(frozen=True)
class TextHashes:
    """Concatenated hashes of several texts; those of text i end before ``ends[i]``."""

    hashes: Hashes
    ends: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of hashes per text. (texts,)."""
        return np.diff(self.ends, prepend=0)


@dataclass(frozen=True)
class WordHashes(TextHashes):
    """The words of several texts, with the start of each in ``data`` (UTF-8)."""

    data: bytes
    starts: NDArray[np.int64]

    def __getitem__(self, number: int) -> str:
        """Return a word as text."""
        match = WORD.match(self.data, int(self.starts[number]))
        return match[0].decode(errors="replace") if match else ""


def hash_words(texts: Sequence[str]) -> WordHashes:
    """Hash each word of some texts, in order; equal words have equal hashes.

    The hash is a polynomial in BASE whose coefficients are the VALUES of the word's bytes. Each
    byte is weighted by its place in the segment, and the sum over a word is divided by the weight
    of its first byte.
    """
    encoded = [_prepare(text) for text in texts]
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
            hashes.append(_mix(sums * INVERSE_POWERS[first]))
            starts.append(first + begin)
    text_ends = np.cumsum([len(text) + 1 for text in encoded], dtype=np.int64)
    all_starts = np.concatenate(starts) if starts else np.empty(0, np.int64)
    ends = np.searchsorted(all_starts, text_ends)
    return WordHashes(concatenate(hashes), ends, data, all_starts)


def ngrams(words: TextHashes, length: int) -> TextHashes:
    """Hash each run of ``length`` words within a text; shorter texts have none."""
    total = len(words.hashes) - length + 1
    counts = np.maximum(words.counts - length + 1, 0)
    if total <= 0 or not counts.any():
        return TextHashes(words.hashes[:0], np.zeros_like(words.ends))
    hashes = words.hashes[:total].copy()
    for offset in range(1, length):
        hashes *= MULTIPLIER
        hashes += words.hashes[offset : offset + total]
    crossing = np.zeros(len(words.hashes) + 1, np.int64)
    np.add.at(crossing, words.ends - words.counts, 1)
    np.add.at(crossing, words.ends - words.counts + counts, -1)
    within = np.cumsum(crossing)[:total] > 0
    return TextHashes(_mix(hashes[within]), np.cumsum(counts))


def distinct(hashes: Hashes) -> Hashes:
    """Return the sorted distinct hashes."""
    ordered = np.sort(hashes)
    if len(ordered) < 2:
        return ordered
    return ordered[np.concatenate(([True], ordered[1:] != ordered[:-1]))]


def jaccard(first: Hashes, second: Hashes) -> float:
    """Return the Jaccard index of two sets of hashes, as returned by ``distinct``."""
    total = len(first) + len(second)
    merged = np.sort(np.concatenate((first, second)), kind="stable")  # fast on two sorted halves
    both = int((merged[1:] == merged[:-1]).sum())
    return both / (total - both) if total else 0.0


def concatenate(parts: list[Hashes]) -> Hashes:
    """Concatenate arrays, also if there are none."""
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)


def _prepare(text: str) -> bytes:
    lowered = text.lower()
    for character in COMMON_PUNCTUATION if not lowered.isascii() else ():
        lowered = lowered.replace(character, " ")
    if not lowered.isascii():
        lowered = NON_ASCII_NON_WORD.sub(" ", lowered)
    return lowered.encode(errors="replace")


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        end = min(start + SEGMENT, len(data))
        if end < len(data):
            tail = np.frombuffer(data[end - MAX_WORD : end], np.uint8)
            outside = np.flatnonzero(~IS_WORD[tail])
            if len(outside):
                end += int(outside[-1]) + 1 - MAX_WORD
        yield start, data[start:end]
        start = end


def _mix(hashes: Hashes) -> Hashes:
    """Spread every bit over all others (the finalizer of splitmix64)."""
    hashes = hashes ^ (hashes >> np.uint64(30))
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes
