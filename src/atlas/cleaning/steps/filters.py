"""Filters of quality, each optional: which documents to leave out, and why.

They are the rules of Gopher (Rae et al. 2021, arXiv:2112.11446, section A1.1 and table A1) with
its thresholds, but for what misfits books and small texts: there is no limit of 100,000 words,
headings and names of speakers may come back, and an n-gram that comes once is not "most frequent".
Words are what stands between blanks, so ``short`` and ``word_length`` misfit Chinese, Japanese and
Thai; ``english`` is for English alone. Each other one suits every language.
"""

import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from atlas.params.schema import FilterName

FEWEST_WORDS = 50
MEAN_WORD_LENGTH = (3, 10)  # characters
MOST_SYMBOLS = 0.1  # "#" or ellipses to words
MOST_BULLETS = 0.9  # of the lines
MOST_ELLIPSES = 0.3  # of the lines
FEWEST_WITH_LETTER = 0.8  # of the words
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
FEWEST_STOP_WORDS = 2  # different ones

LONGEST_HEADING = 3  # words; chapter numbers, speakers in a play
MOST_REPEATED_PARTS = 0.3  # of the lines, of the paragraphs, headings not counted
MOST_REPEATED_PART_CHARACTERS = 0.2  # of the characters of all of them
MOST_OF_TOP_NGRAM = {2: 0.20, 3: 0.18, 4: 0.16}  # of the characters
MOST_IN_REPEATED_NGRAMS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

BULLETS = ("•", "‣", "◦", "●", "▪", "-", "*")
ELLIPSES = ("...", "…")
PARAGRAPH_END = re.compile(r"\n\s*\n")
LETTER = re.compile(r"[^\W\d_]")


def short(text: str) -> str | None:
    """Fewer than 50 words."""
    words = len(text.split())
    return f"{words} words, fewer than {FEWEST_WORDS}" if words < FEWEST_WORDS else None


def word_length(text: str) -> str | None:
    """Words that are on average shorter than 3 or longer than 10 characters."""
    words = text.split()
    mean = sum(map(len, words)) / max(1, len(words))
    least, most = MEAN_WORD_LENGTH
    if least <= mean <= most:
        return None
    return f"mean word length {mean:.1f}, not between {least} and {most}"


def symbols(text: str) -> str | None:
    """More than a hash sign or an ellipsis to ten words."""
    words = max(1, len(text.split()))
    found = {"hash signs": text.count("#"), "ellipses": sum(map(text.count, ELLIPSES))}
    for name, count in found.items():
        if count > MOST_SYMBOLS * words:
            return f"{count} {name} to {words} words, more than {MOST_SYMBOLS:g} a word"
    return None


def bullets(text: str) -> str | None:
    """More than 90 % of the lines begin with a bullet."""
    lines = _lines(text)
    return _too_many(sum(line.startswith(BULLETS) for line in lines), lines, MOST_BULLETS, "bullet")


def ellipsis(text: str) -> str | None:
    """More than 30 % of the lines end with an ellipsis."""
    lines = _lines(text)
    return _too_many(sum(line.endswith(ELLIPSES) for line in lines), lines, MOST_ELLIPSES, "...")


def letters(text: str) -> str | None:
    """Fewer than 80 % of the words hold a letter."""
    words = text.split()
    having = sum(word.isalpha() or LETTER.search(word) is not None for word in words)
    if having >= FEWEST_WITH_LETTER * len(words):
        return None
    return f"{having} of {len(words)} words have a letter, fewer than {FEWEST_WITH_LETTER:.0%}"


def english(text: str) -> str | None:
    """Fewer than two different of eight frequent English words."""
    found = STOP_WORDS & set(text.lower().split())
    if len(found) >= FEWEST_STOP_WORDS:
        return None
    return f"{len(found)} of the words {', '.join(sorted(STOP_WORDS))}; needs {FEWEST_STOP_WORDS}"


def repetition(text: str) -> str | None:
    """Lines, paragraphs or runs of words that come again and again."""
    paragraphs = [part for part in map(str.strip, PARAGRAPH_END.split(text)) if part]
    return (
        _repeated_parts(_lines(text), "lines")
        or _repeated_parts(paragraphs, "paragraphs")
        or _repeated_words(text.split())
    )


FILTERS: Mapping[FilterName, Callable[[str], str | None]] = {
    "short": short,
    "word_length": word_length,
    "symbols": symbols,
    "bullets": bullets,
    "ellipsis": ellipsis,
    "letters": letters,
    "english": english,
    "repetition": repetition,
}


def _lines(text: str) -> list[str]:
    return [line for line in map(str.strip, text.split("\n")) if line]


def _too_many(count: int, lines: list[str], most: float, what: str) -> str | None:
    if count <= most * len(lines):
        return None
    return f"{count} of {len(lines)} lines with {what}, more than {most:.0%}"


def _repeated_parts(parts: list[str], name: str) -> str | None:
    """Repeated lines or paragraphs; the first of equal ones is not counted."""
    distinct = set(parts)
    characters = 1 - sum(map(len, distinct)) / max(1, sum(map(len, parts)))
    if characters > MOST_REPEATED_PART_CHARACTERS:
        most = MOST_REPEATED_PART_CHARACTERS
        return f"{characters:.0%} of the characters in repeated {name}, more than {most:.0%}"
    counted = sum(map(_no_heading, parts))
    repeated = 1 - sum(map(_no_heading, distinct)) / counted if counted else 0
    if repeated > MOST_REPEATED_PARTS:
        return f"{repeated:.0%} repeated {name}, more than {MOST_REPEATED_PARTS:.0%}"
    return None


def _no_heading(part: str) -> bool:
    return len(part.split(maxsplit=LONGEST_HEADING)) > LONGEST_HEADING


def _repeated_words(words: list[str]) -> str | None:
    """Repeated n-grams, as shares of the characters of all words."""
    if not words:
        return None
    lengths = np.array([len(word) for word in words])
    total = int(lengths.sum())
    for n, ids in _ngrams(words):
        if n in MOST_OF_TOP_NGRAM:
            share, most = _top_characters(ids, lengths, n) / total, MOST_OF_TOP_NGRAM[n]
            if share > most:
                return f"{share:.0%} in the most frequent {n}-gram, more than {most:.0%}"
        elif n in MOST_IN_REPEATED_NGRAMS:
            share = _repeated_characters(ids, lengths, n) / total
            most = MOST_IN_REPEATED_NGRAMS[n]
            if share > most:
                return f"{share:.0%} in repeated {n}-grams, more than {most:.0%}"
            # A longer n-gram that comes again brings back all those within it.
            if share <= min(MOST_IN_REPEATED_NGRAMS.values()):
                return None
    return None


def _ngrams(words: list[str]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """For n from 2 on: at each word a number, the same where the same n-gram begins."""
    numbers: dict[str, int] = {}
    word_ids = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.int64)
    ids = word_ids
    for n in range(2, min(len(words), max(MOST_IN_REPEATED_NGRAMS)) + 1):
        pairs = ids[:-1] * len(numbers) + word_ids[n - 1 :]
        ids = np.unique(pairs, return_inverse=True)[1]
        yield n, ids


def _top_characters(ids: NDArray[np.int64], lengths: NDArray[np.int64], n: int) -> int:
    """The characters of the most frequent n-gram (the longest such) in all its places."""
    counts = np.bincount(ids)
    most = counts.max()
    if most < 2:
        return 0
    ngram_lengths = np.convolve(lengths, np.ones(n, np.int64), "valid")
    return int(most * ngram_lengths[counts[ids] == most].max())


def _repeated_characters(ids: NDArray[np.int64], lengths: NDArray[np.int64], n: int) -> int:
    """The characters of words in an n-gram that was there before, each counted once."""
    again = np.ones(len(ids), bool)
    again[np.unique(ids, return_index=True)[1]] = False
    covered = np.convolve(again, np.ones(n, np.int64)) > 0
    return int(lengths[covered].sum())
