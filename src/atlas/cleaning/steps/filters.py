"""Optional quality filters. Each returns None, or the reason to reject a document.

These are the Gopher rules (Rae et al. 2021, arXiv:2112.11446, section A1.1 and table A1) with the
published thresholds, adapted to books and small texts: no limit of 100,000 words, repeated
headings and speaker names are fine, and an n-gram that occurs once is never "most frequent".

Words are separated by whitespace; in scripts that have none between words (Chinese, Japanese, Thai
...) each letter counts as a word. ``word_length`` and the n-grams of ``repetition`` don't apply to
a text where most words are such letters or Korean syllables, and ``english`` is for English only.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.words import UNSPACED

MIN_WORDS = 50
MEAN_WORD_LENGTH = (3, 10)  # minimum and maximum, in characters
MAX_SYMBOLS_PER_WORD = 0.1  # hash signs, or ellipses
MAX_BULLET_LINES = 0.9  # share of lines
MAX_ELLIPSIS_LINES = 0.3  # share of lines
MIN_WORDS_WITH_LETTER = 0.8  # share of words
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
MIN_STOP_WORDS = 2  # distinct

MAX_HEADING_WORDS = 3  # chapter numbers, speakers in a play
MAX_REPEATED_SEGMENTS = 0.3  # share of lines, and of paragraphs, without headings
MAX_REPEATED_CHARACTERS = 0.2  # share of characters in repeated lines, and in paragraphs
# Share of characters, by n.
MAX_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}
MAX_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

BULLETS = ("•", "‣", "◦", "●", "▪", "-", "*")
ELLIPSES = ("...", "…")
PARAGRAPH_BREAK = re.compile(r"\n\s*\n")
LETTER = re.compile(r"[^\W\d_]")
IN_UNSPACED = re.compile(f"[{UNSPACED}]")
# A letter of a script without spaces, with its marks; or other characters with a letter or digit.
WORD = re.compile(
    rf"(?=\w)[{UNSPACED}](?:(?!\w)[{UNSPACED}])*|[^\s{UNSPACED}\W]+(?:[^\s{UNSPACED}]*\w)?"
)
SHORT_WORD = re.compile(f"[{UNSPACED}\uac00-\ud7af]")


def short(text: str) -> str | None:
    """Fewer than 50 words."""
    words = len(_words(text))
    return f"{words} words, fewer than {MIN_WORDS}" if words < MIN_WORDS else None


def word_length(text: str) -> str | None:
    """Mean word length below 3 or above 10 characters."""
    words = _words(text)
    if _is_mostly_short_words(words):
        return None
    mean = sum(map(len, words)) / max(1, len(words))
    low, high = MEAN_WORD_LENGTH
    good = low <= mean <= high
    return None if good else f"mean word length {mean:.1f}, not between {low} and {high}"


def symbols(text: str) -> str | None:
    """More than one hash sign or ellipsis per ten words."""
    words = max(1, len(_words(text)))
    counts = {"hash signs": text.count("#"), "ellipses": sum(map(text.count, ELLIPSES))}
    for name, count in counts.items():
        if count > MAX_SYMBOLS_PER_WORD * words:
            return f"{count} {name} in {words} words, more than {MAX_SYMBOLS_PER_WORD:g} per word"
    return None


def bullets(text: str) -> str | None:
    """More than 90% of lines start with a bullet."""
    return _too_many_lines(text, lambda line: line.startswith(BULLETS), MAX_BULLET_LINES, "bullet")


def ellipsis(text: str) -> str | None:
    """More than 30% of lines end with an ellipsis."""
    return _too_many_lines(text, lambda line: line.endswith(ELLIPSES), MAX_ELLIPSIS_LINES, "...")


def letters(text: str) -> str | None:
    """Fewer than 80% of words contain a letter."""
    words = _words(text)
    count = sum(word.isalpha() or LETTER.search(word) is not None for word in words)
    if count >= MIN_WORDS_WITH_LETTER * len(words):
        return None
    return f"{count} of {len(words)} words have a letter, fewer than {MIN_WORDS_WITH_LETTER:.0%}"


def english(text: str) -> str | None:
    """Fewer than two of eight frequent English words."""
    found = STOP_WORDS & set(text.lower().split())
    if len(found) >= MIN_STOP_WORDS:
        return None
    return f"{len(found)} of the words {', '.join(sorted(STOP_WORDS))}; needs {MIN_STOP_WORDS}"


def repetition(text: str) -> str | None:
    """Too many repeated lines, paragraphs or word n-grams."""
    paragraphs = [each for each in map(str.strip, PARAGRAPH_BREAK.split(text)) if each]
    words = _words(text)
    return (
        _repeated_segments(_lines(text), "lines")
        or _repeated_segments(paragraphs, "paragraphs")
        or (None if _is_mostly_short_words(words) else _repeated_ngrams(words))
    )


FILTERS: Mapping[str, Callable[[str], str | None]] = {
    rule.__name__: rule
    for rule in (short, word_length, symbols, bullets, ellipsis, letters, english, repetition)
}


def _words(text: str) -> list[str]:
    if text.isascii() or not IN_UNSPACED.search(text):
        return text.split()
    return WORD.findall(text)


def _is_mostly_short_words(words: list[str]) -> bool:
    return 2 * sum(SHORT_WORD.match(word) is not None for word in words) > len(words)


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]


def _too_many_lines(
    text: str, condition: Callable[[str], bool], limit: float, name: str
) -> str | None:
    lines = _lines(text)
    count = sum(map(condition, lines))
    if count <= limit * len(lines):
        return None
    return f"{count} of {len(lines)} lines with {name}, more than {limit:.0%}"


def _repeated_segments(segments: list[str], name: str) -> str | None:
    """Check for repeated lines or paragraphs; the first occurrence doesn't count."""
    distinct = set(segments)
    characters = 1 - sum(map(len, distinct)) / max(1, sum(map(len, segments)))
    if characters > MAX_REPEATED_CHARACTERS:
        limit = MAX_REPEATED_CHARACTERS
        return f"{characters:.0%} of the characters in repeated {name}, more than {limit:.0%}"
    counted = sum(map(_is_not_heading, segments))
    repeated = 1 - sum(map(_is_not_heading, distinct)) / counted if counted else 0
    if repeated > MAX_REPEATED_SEGMENTS:
        return f"{repeated:.0%} repeated {name}, more than {MAX_REPEATED_SEGMENTS:.0%}"
    return None


def _is_not_heading(segment: str) -> bool:
    return len(_words(segment)) > MAX_HEADING_WORDS


def _repeated_ngrams(words: list[str]) -> str | None:
    """Check for repeated n-grams, measured as shares of the characters of all words."""
    if not words:
        return None
    lengths = np.array([len(word) for word in words])
    total = int(lengths.sum())
    for n, ids in _ngram_ids(words):
        if n in MAX_TOP_NGRAM:
            found, limit = f"the most frequent {n}-gram", MAX_TOP_NGRAM[n]
            share = _top_ngram_characters(ids, lengths, n) / total
        else:
            found, limit = f"repeated {n}-grams", MAX_REPEATED_NGRAMS[n]
            share = _repeated_characters(ids, lengths, n) / total
        if share > limit:
            return f"{share:.0%} in {found}, more than {limit:.0%}"
        # Repeated longer n-grams contain repeated shorter ones, so they can't cover more.
        if n in MAX_REPEATED_NGRAMS and share <= min(MAX_REPEATED_NGRAMS.values()):
            return None
    return None


def _ngram_ids(words: list[str]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield n = 2, 3, ... and, for each word, the id of the n-gram that starts there."""
    vocabulary: dict[str, int] = {}
    word_ids = np.array([vocabulary.setdefault(word, len(vocabulary)) for word in words], np.int64)
    ids = word_ids
    for n in range(2, min(len(words), max(MAX_REPEATED_NGRAMS)) + 1):
        pairs = ids[:-1] * len(vocabulary) + word_ids[n - 1 :]
        ids = np.unique(pairs, return_inverse=True)[1]
        yield n, ids


def _top_ngram_characters(ids: NDArray[np.int64], lengths: NDArray[np.int64], n: int) -> int:
    """Count the characters of all occurrences of the most frequent n-gram, the longest on a tie."""
    counts = np.bincount(ids)
    highest = counts.max()
    if highest < 2:
        return 0
    ngram_lengths = np.convolve(lengths, np.ones(n, np.int64), "valid")
    return int(highest * ngram_lengths[counts[ids] == highest].max())


def _repeated_characters(ids: NDArray[np.int64], lengths: NDArray[np.int64], n: int) -> int:
    """Count the characters of words in repetitions of earlier n-grams, each word once."""
    repeated = np.ones(len(ids), bool)
    repeated[np.unique(ids, return_index=True)[1]] = False
    covered = np.convolve(repeated, np.ones(n, np.int64)) > 0
    return int(lengths[covered].sum())
