r"""Hash words and word n-grams to 64 bits, to find duplicates and leakage and to count words.

A word is a run of letters, digits and underscores, ``\w+``, in lower case, with the marks (accents,
vowel signs, points) and joiners that follow its letters. Scripts that put no spaces between words
(Han, Kana, Thai, Lao, Khmer, Burmese, Tibetan ...) have characters in place of words, each with its
marks: a segmenter needs a dictionary per language, runs at less than 1 MB/s, and divides two
copies of a text differently where they differ.

Near duplicates are found by shingles of other units: words in alphabets (Latin, Greek, Cyrillic
...), and single letters and marks in all other scripts.

NumPy looks up the class and the hash value of each code point, about 100 MB/s, where a Python
string per 5-gram would allow 8.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Codes = NDArray[np.uint8] | NDArray[np.uint32]  # code points
SEGMENT = 1 << 16  # characters hashed at once, so that the arrays fit in the CPU cache
BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64
MULTIPLIER = np.uint64(0xD6E8FEB86659FD93)  # of hashes of hashes
ASCII = 0x80
IDEOGRAPHS = 0x20000  # from here on there are Han characters only, up to the last code below
CODES = 0x40000  # in the tables; the rest are neither letters nor marks of letters

# Classes of characters. A mark continues what it follows; a character is a word of its own.
OUTSIDE, LETTER, MARK, CHARACTER = range(4)
IGNORED = "\u00ad\u200c\u200d"  # within a word: soft hyphen, joiners
# Halfwidth sound marks of Kana, and the Thai and Lao vowel am: letters by name, marks by use.
EXTENDING = "\u0e33\u0eb3\uff9e\uff9f"
# Scripts without spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Tai, Balinese, Javanese;
# Han, Kana, Bopomofo and Yi.
UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf"
    "\u2e80-\u2fdf\u3005-\u312f\u31a0-\u31ff\u3400-\u4dbf\u4e00-\ua4cf\uf900-\ufaff\uff66-\uff9f"
    "\U0001aff0-\U0001b2ff\U00020000-\U0003ffff"
)
# Latin, Greek, Cyrillic, Armenian, Georgian, Coptic, Glagolitic, Deseret.
ALPHABET = (
    "\x00-\u058f\u10a0-\u10ff\u1c80-\u1cbf\u1d00-\u1fff\u2000-\u2d2f\ua640-\ua69f\ua720-\ua7ff"
    "\uab30-\uab6f\ufb00-\ufb17\uff10-\uff5a\U00010400-\U0001044f"
)


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
    """The words of several texts."""

    text: str  # all texts, joined by line ends
    codes: Codes  # of ``text``
    starts: NDArray[np.int64]  # of each word in ``text``
    are_characters: NDArray[np.bool_] | None  # whether each word is a CHARACTER; None: none is

    def __getitem__(self, number: int) -> str:
        """Return a word as text."""
        start, *following = self.starts[number : number + 2].tolist()
        end = min([start + SEGMENT, *following])
        outside = np.flatnonzero(_tables().words[_index(self.codes[start:end])] == OUTSIDE)
        end = start + int(outside[0]) if len(outside) else end
        return self.text[start:end].lower()


@dataclass(frozen=True)
class Tables:
    """The properties of the first CODES code points."""

    values: Hashes  # coefficients of the hash: 0 outside words, else random
    words: NDArray[np.uint8]  # classes for the division into words
    shingles: NDArray[np.uint8]  # classes for the division into units of shingles


@cache
def _tables() -> Tables:
    characters = np.arange(CODES, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    words, decimal = (_matches(pattern, characters) for pattern in (r"\w+", r"\d+"))
    marks, ignored, unspaced, alphabet = (
        _matches(f"[{each}]+", characters) for each in (EXTENDING, IGNORED, UNSPACED, ALPHABET)
    )
    others = characters[:IDEOGRAPHS]
    marks[:IDEOGRAPHS] |= [unicodedata.category(each) in ("Mn", "Mc", "Me") for each in others]
    lower = np.arange(CODES, dtype=np.uint64)
    lower[:IDEOGRAPHS] = [ord(each.lower()[0]) for each in others]
    lower[0x3C2] = 0x3C3  # the final sigma is the same letter
    classes = np.where(words, LETTER, OUTSIDE).astype(np.uint8)
    shingles = np.where((words | marks) & ~alphabet & ~decimal, CHARACTER, classes).astype(np.uint8)
    shingles[marks & alphabet] = MARK
    classes[words & unspaced & ~decimal] = CHARACTER
    classes[marks | ignored] = MARK
    values = mix(lower * np.uint64(BASE))
    random = hashlib.shake_256(b"atlas words").digest(ASCII * 8)
    values[:ASCII] = np.frombuffer(random, "<u8")[lower[:ASCII].astype(np.intp)]
    values[(classes == OUTSIDE) | ignored] = 0
    return Tables(values, classes, shingles)


def _matches(pattern: str, characters: str) -> NDArray[np.bool_]:
    """Mark the characters that a pattern matches."""
    found = np.zeros(len(characters), bool)
    for match in re.finditer(pattern, characters):
        found[match.start() : match.end()] = True
    return found


def _powers(base: int) -> Hashes:
    """Return ``base**0, base**1, ...`` modulo 2**64."""
    powers = np.full(SEGMENT, base, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


POWERS = _powers(BASE)
INVERSE_POWERS = _powers(pow(BASE, -1, 1 << 64))


def hash_words(texts: Sequence[str]) -> WordHashes:
    """Hash each word of some texts, in order; equal words have equal hashes."""
    return _hash(texts, _tables().words)


def hash_shingles(texts: Sequence[str], words: int, characters: int) -> TextHashes:
    """Hash each run of ``words`` words in alphabets, or ``characters`` letters in other scripts."""
    return ngrams(_hash(texts, _tables().shingles), words, characters)


def _hash(texts: Sequence[str], classes: NDArray[np.uint8]) -> WordHashes:
    """Hash the words that some classes of characters give.

    The hash is a polynomial in BASE whose coefficients are the values of the word's characters.
    Each is weighted by its place in the segment, and the sum over a word is divided by the weight
    of its first character. The rest of a word longer than a segment is ignored.
    """
    text = "\n".join(texts)
    codes = encode(text)
    index = _index(codes)
    found = classes[index]
    stray = None
    if found.max(initial=OUTSIDE) <= LETTER:
        starts = _starts(found.view(bool))
        are_characters = None
    else:
        last = found  # class of the last character that is not a mark
        marks = found == MARK
        if marks.any():
            places = np.where(marks, 0, np.arange(len(found)))
            last = found[np.maximum.accumulate(places)]
            stray = marks & ((last == OUTSIDE) | (last == MARK))
        first = found == CHARACTER
        starts = np.flatnonzero(first | _is_first(last == LETTER))
        are_characters = first[starts]
    values = _tables().values
    hashes = []
    for begin, end, first_word, last_word in _segments(starts, len(codes)):
        weighted = values[index[begin:end]]
        if stray is not None:
            weighted[stray[begin:end]] = 0
        weighted *= POWERS[: end - begin]
        places = starts[first_word:last_word] - begin
        hashes.append(mix(np.add.reduceat(weighted, places) * INVERSE_POWERS[places]))
    text_ends = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    ends = np.searchsorted(starts, text_ends)
    return WordHashes(concatenate(hashes), ends, text, codes, starts, are_characters)


def encode(text: str) -> Codes:
    """Return the code points of a text, bytes if all are ASCII."""
    if text.isascii():
        return np.frombuffer(text.encode(), np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _index(codes: Codes) -> Codes:
    """Return code points for look-ups in the tables."""
    return np.minimum(codes, np.uint32(CODES - 1)) if codes.itemsize > 1 else codes


def _is_first(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    first = inside.copy()
    first[1:] &= ~inside[:-1]
    return first


def _starts(inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(_is_first(inside))


def _segments(starts: NDArray[np.int64], length: int) -> Iterator[tuple[int, int, int, int]]:
    """Divide a text into segments of whole words: first and last character, first and last word."""
    word = 0
    while word < len(starts):
        begin = int(starts[word])
        following = int(np.searchsorted(starts, begin + SEGMENT, side="right")) - 1
        if length <= begin + SEGMENT:
            following = len(starts)
        following = max(following, word + 1)
        end = int(starts[following]) if following < len(starts) else length
        yield begin, min(end, begin + SEGMENT), word, following
        word = following


def ngrams(words: TextHashes, length: int, characters: int | None = None) -> TextHashes:
    """Hash each run of ``length`` words within a text; shorter texts have none.

    A run that begins with a CHARACTER has ``characters`` words instead if that is given.
    """
    are_characters = words.are_characters if isinstance(words, WordHashes) else None
    if characters is None or are_characters is None:
        return _runs(words, length, None)
    parts = [
        _runs(words, length, ~are_characters),
        _runs(words, characters, are_characters),
    ]
    ends = parts[0].ends + parts[1].ends
    text = [np.repeat(np.arange(len(ends)), part.counts) for part in parts]
    order = np.argsort(np.concatenate(text), kind="stable")
    return TextHashes(np.concatenate([part.hashes for part in parts])[order], ends)


def _runs(words: TextHashes, length: int, beginning: NDArray[np.bool_] | None) -> TextHashes:
    """Hash the runs of ``length`` words that begin with some of the words, or with any."""
    total = len(words.hashes) - length + 1
    counts = np.maximum(words.counts - length + 1, 0)
    if total <= 0 or not counts.any():
        return TextHashes(words.hashes[:0], np.zeros_like(words.ends))
    hashes = words.hashes[:total].copy()
    for offset in range(1, length):
        hashes *= MULTIPLIER
        hashes += words.hashes[offset : offset + total]
    within = np.ones(total + length, bool)
    for end, count in zip(words.ends.tolist(), words.counts.tolist(), strict=True):
        within[max(end - length + 1, end - count) : end] = False
    within = within[:total]
    if beginning is None:
        return TextHashes(mix(hashes[within]), np.cumsum(counts))
    within &= beginning[:total]
    before = np.concatenate(([0], np.cumsum(within)))
    return TextHashes(mix(hashes[within]), before[np.minimum(words.ends, total)])


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


def mix(hashes: Hashes) -> Hashes:
    """Spread every bit over all others (the finalizer of splitmix64)."""
    hashes = hashes ^ (hashes >> np.uint64(30))
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes
