"""What a corpus is made of: characters, scripts, words, and how long its documents are.

Counts are added up shard by shard. Words are counted by their hashes, and the most frequent ones
of each shard are spelled out, so that no table of strings grows with the corpus.

The statistics of a corpus as tables that DVC plots.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.words import Hashes, Words

SHOWN = 200  # words and characters in the report
SPELLED = 5 * SHOWN  # of each shard: what is frequent in all is frequent in some shard
MOST_WORDS = 1 << 22  # distinct words that are held; beyond it the rarest are given up


@dataclass
class Statistics:
    """Counts over documents.

    Attributes:
        documents: how many.
        characters: how often each was seen.
        lengths: how many documents have 1, 2-3, 4-7, 8-15 ... words, by the number of bits.
        words: total.
        word_hashes: distinct words, sorted.
        word_counts: how often each was seen.
        spelled: some frequent ones of these words, by their hash.
        given_up: whether rare words were, so that distinct ones are a lower bound.
    """

    documents: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    words: int = 0
    word_hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))
    word_counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    spelled: dict[int, str] = field(default_factory=dict)
    given_up: bool = False

    def add(self, texts: Sequence[str], words: Words) -> None:
        """Counts some documents, given with their hashed words."""
        codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
        found = np.bincount(codes)
        for code in np.flatnonzero(found).tolist():
            self.characters[chr(code)] += int(found[code])
        self.documents += len(texts)
        self.words += len(words.hashes)
        self.lengths.update(count.bit_length() for count in words.counts.tolist())
        hashes, first, counts = np.unique(words.hashes, return_index=True, return_counts=True)
        for place in _largest(counts, SPELLED).tolist():
            self.spelled.setdefault(int(hashes[place]), words[int(first[place])])
        self._add_words(hashes, counts.astype(np.int64))

    def merge(self, other: "Statistics") -> None:
        """Adds the counts of other documents."""
        self.documents += other.documents
        self.words += other.words
        self.characters.update(other.characters)
        self.lengths.update(other.lengths)
        self.given_up |= other.given_up
        self.spelled |= other.spelled
        self._add_words(other.word_hashes, other.word_counts)
        self.keep_frequent_spellings()

    def keep_frequent_spellings(self) -> None:
        """Forgets how all but the most frequent words are spelled."""
        if len(self.spelled) > SPELLED:
            kept = set(self.word_hashes[_largest(self.word_counts, SPELLED)].tolist())
            self.spelled = {key: word for key, word in self.spelled.items() if key in kept}

    def report(self) -> dict[str, Any]:
        """The counts as a tree for JSON, most frequent first."""
        return {
            "documents": self.documents,
            "characters": self.characters.total(),
            "distinct_characters": len(self.characters),
            "words": self.words,
            "distinct_words": len(self.word_hashes),
            "distinct_words_is_lower_bound": self.given_up,
            "scripts": dict(self.scripts().most_common()),
            "document_lengths": dict(self.document_lengths()),
            "most_frequent_characters": dict(self.frequent_characters()),
            "most_frequent_words": dict(self.frequent_words()),
        }

    def scripts(self) -> Counter[str]:
        """Letters by script: the first word of a letter's Unicode name, such as Latin."""
        found: Counter[str] = Counter()
        for character, count in self.characters.items():
            if character.isalpha():
                found[unicodedata.name(character, "UNNAMED").split()[0].capitalize()] += count
        return found

    def document_lengths(self) -> list[tuple[str, int]]:
        """How many documents have so many words, in steps that double; none left out between."""
        longest = max(self.lengths, default=0)
        spans = ["0", "1"] + [
            f"{1 << bits - 1}-{(1 << bits) - 1}" for bits in range(2, longest + 1)
        ]
        return [(span, self.lengths[bits]) for bits, span in enumerate(spans[: longest + 1])]

    def frequent_characters(self) -> list[tuple[str, int]]:
        """The most frequent characters and how often each was seen."""
        return _ranked(self.characters)[:SHOWN]

    def frequent_words(self) -> list[tuple[str, int]]:
        """The most frequent words and how often each was seen."""
        places = np.searchsorted(self.word_hashes, np.array(list(self.spelled), np.uint64))
        counts = Counter(
            dict(zip(self.spelled.values(), self.word_counts[places].tolist(), strict=True))
        )
        return _ranked(counts)[:SHOWN]

    def _add_words(self, hashes: Hashes, counts: NDArray[np.int64]) -> None:
        together = np.concatenate((self.word_hashes, hashes))
        self.word_hashes, place = np.unique(together, return_inverse=True)
        weights = np.concatenate((self.word_counts, counts))
        self.word_counts = np.zeros(len(self.word_hashes), np.int64)
        np.add.at(self.word_counts, place, weights)
        if len(self.word_hashes) > MOST_WORDS:
            kept = np.sort(_largest(self.word_counts, MOST_WORDS // 2))
            self.word_hashes, self.word_counts = self.word_hashes[kept], self.word_counts[kept]
            held = set(self.word_hashes.tolist()) & self.spelled.keys()
            self.spelled = {key: self.spelled[key] for key in held}
            self.given_up = True


def _largest(counts: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    """The places of the largest counts; of equal ones the first, on every machine."""
    return np.argsort(-counts, kind="stable")[:number]


def _ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """By count, equal ones by name: the same order on every machine."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


ROWS = 40  # of a plot that can be read
Row = dict[str, int | float | str]
VISIBLE = {" ": "blank", "\n": "line end", "\t": "tab", "\u00a0": "no-break space"}


def tables(splits: Iterable[Statistics]) -> dict[str, list[Row]]:
    """Words, characters, scripts and document lengths of all splits together, by name."""
    total = Statistics()
    for split in splits:
        total.merge(split)
    characters = [(VISIBLE.get(each, each), n) for each, n in total.frequent_characters()[:ROWS]]
    return {
        "words": _rows("word", "count", total.frequent_words()[:ROWS]),
        "characters": _rows("character", "count", characters),
        "scripts": _rows("script", "letters", total.scripts().most_common()),
        "lengths": _rows("words", "documents", total.document_lengths()),
    }


def _rows(name: str, number: str, found: list[tuple[str, int]]) -> list[Row]:
    """Rows of a table, at least one: equations have no letters, and a plot wants something."""
    return [{name: each, number: count} for each, count in found or [("none", 0)]]
