"""Statistics of a corpus: characters, scripts, words and document lengths.

Counts are summed over shards. Words are counted by hash, and only the most frequent ones of each
shard are kept as text, so no table of strings grows with the corpus.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.words import Hashes, WordHashes

TOP = 200  # words and characters in the report
MAX_SPELLINGS = 2 * TOP  # words kept as text per shard
SPELLINGS_SEARCHED = 1 << 14  # words to look at first for the spelling of frequent ones
MAX_WORDS = 1 << 22  # distinct words counted; beyond that the rarest are dropped


@dataclass
class Statistics:
    """Counts over documents."""

    documents: int = 0
    characters: Counter[str] = field(default_factory=Counter)
    # Documents by the bit length of their word count: 0, 1, 2-3, 4-7, 8-15, ...
    lengths: Counter[int] = field(default_factory=Counter)
    words: int = 0  # in total
    word_hashes: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))  # sorted
    word_counts: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    spellings: dict[int, str] = field(default_factory=dict)  # frequent words by hash
    # Documents, characters and words of each corpus of a mix.
    corpora: dict[str, Counter[str]] = field(default_factory=dict)
    truncated: bool = False  # rare words were dropped, so ``word_hashes`` lacks some

    def add(self, words: WordHashes) -> None:
        """Count some documents, given as their hashed words."""
        self.documents += len(words.ends)
        self._add_characters(np.bincount(words.codes), line_ends=len(words.ends) - 1)
        self.words += len(words.hashes)
        self.lengths.update(count.bit_length() for count in words.counts.tolist())
        ordered = np.sort(words.hashes)  # eight times as fast as np.unique with indices
        starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        hashes = ordered[starts[: len(ordered)]]
        counts = np.diff(starts[: len(ordered)], append=len(ordered))
        self._add_spellings(words, hashes[_top_indices(counts, MAX_SPELLINGS)])
        self._add_words(hashes, counts)

    def add_corpora(
        self, corpora: Sequence[str | None], texts: Sequence[str], words: WordHashes
    ) -> None:
        """Count the same documents by corpus; those outside a mix have none."""
        if not any(corpora):
            return
        for corpus, text, count in zip(corpora, texts, words.counts.tolist(), strict=True):
            counts = self.corpora.setdefault(corpus or "", Counter())
            counts.update(documents=1, characters=len(text), words=count)

    def merge(self, other: "Statistics") -> None:
        """Add the counts of other documents."""
        for corpus, counts in other.corpora.items():
            self.corpora.setdefault(corpus, Counter()).update(counts)
        self.documents += other.documents
        self.words += other.words
        self.characters.update(other.characters)
        self.lengths.update(other.lengths)
        self.truncated |= other.truncated
        self.spellings |= other.spellings
        self._add_words(other.word_hashes, other.word_counts)
        self.drop_rare_spellings()

    def drop_rare_spellings(self) -> None:
        """Keep only the most frequent words as text."""
        if len(self.spellings) > MAX_SPELLINGS:
            kept = set(self.word_hashes[_top_indices(self.word_counts, MAX_SPELLINGS)].tolist())
            self.spellings = {key: word for key, word in self.spellings.items() if key in kept}

    def report(self) -> dict[str, Any]:
        """Return the counts as JSON values, most frequent first."""
        return {
            "documents": self.documents,
            "characters": self.characters.total(),
            "distinct_characters": len(self.characters),
            "words": self.words,
            "distinct_words": len(self.word_hashes),
            "distinct_words_is_lower_bound": self.truncated,
            "scripts": dict(self.scripts().most_common()),
            "document_lengths": dict(self.document_lengths()),
            "most_frequent_characters": dict(_top(self.characters)),
            "most_frequent_words": dict(self.frequent_words()),
            **({"corpora": self.corpora} if self.corpora else {}),
        }

    def scripts(self) -> Counter[str]:
        """Count letters by script, the first word of their Unicode names, such as Latin."""
        found: Counter[str] = Counter()
        for character, count in self.characters.items():
            if character.isalpha():
                found[unicodedata.name(character, "UNNAMED").split()[0].capitalize()] += count
        return found

    def document_lengths(self) -> list[tuple[str, int]]:
        """Count documents by number of words, in ranges that double."""
        longest = max(self.lengths, default=0)
        ranges = ["0", "1", *(f"{1 << n - 1}-{(1 << n) - 1}" for n in range(2, longest + 1))]
        return [(label, self.lengths[bits]) for bits, label in enumerate(ranges[: longest + 1])]

    def frequent_words(self) -> list[tuple[str, int]]:
        """Return the most frequent words with their counts."""
        indices = np.searchsorted(self.word_hashes, np.array(list(self.spellings), np.uint64))
        counts = self.word_counts[indices].tolist()
        return _top(dict(zip(self.spellings.values(), counts, strict=True)))

    def _add_characters(self, counts: NDArray[np.int64], line_ends: int) -> None:
        """Add counts by code point; ``line_ends`` join the documents and are not part of them."""
        for code in np.flatnonzero(counts).tolist():
            self.characters[chr(code)] += int(counts[code])
        self.characters["\n"] -= max(line_ends, 0)
        if not self.characters["\n"]:
            del self.characters["\n"]

    def _add_spellings(self, words: WordHashes, hashes: Hashes) -> None:
        """Keep the text of some words; frequent ones are found near the start."""
        unknown = [each for each in hashes.tolist() if each not in self.spellings]
        missing = np.sort(np.array(unknown, np.uint64))
        begin, length = 0, SPELLINGS_SEARCHED
        while len(missing) and begin < len(words.hashes):
            found, places = np.unique(words.hashes[begin : begin + length], return_index=True)
            index = np.minimum(np.searchsorted(found, missing), len(found) - 1)
            is_found = found[index] == missing
            places = begin + places[index[is_found]]
            for each, place in zip(missing[is_found].tolist(), places.tolist(), strict=True):
                self.spellings[each] = words[place]
            missing = missing[~is_found]
            begin, length = begin + length, 2 * length

    def _add_words(self, hashes: Hashes, counts: NDArray[np.int64]) -> None:
        all_hashes = np.concatenate((self.word_hashes, hashes))
        all_counts = np.concatenate((self.word_counts, counts))
        order = np.argsort(all_hashes, kind="stable")  # fast on two sorted halves
        all_hashes = all_hashes[order]
        starts = np.flatnonzero(np.concatenate(([True], all_hashes[1:] != all_hashes[:-1])))
        if len(all_hashes):
            self.word_hashes = all_hashes[starts]
            self.word_counts = np.add.reduceat(all_counts[order], starts)
        if len(self.word_hashes) > MAX_WORDS:
            kept = np.sort(_top_indices(self.word_counts, MAX_WORDS // 2))
            self.word_hashes, self.word_counts = self.word_hashes[kept], self.word_counts[kept]
            counted = set(self.word_hashes.tolist()) & self.spellings.keys()
            self.spellings = {key: self.spellings[key] for key in counted}
            self.truncated = True


def _top_indices(counts: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Return the indices of the largest counts; ties in order, the same on every machine."""
    return np.argsort(-counts, kind="stable")[:limit]


def _top(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return the largest counts with their names; ties by name, the same on every machine."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOP]


PLOT_ROWS = 40  # a plot of more is not readable
Row = dict[str, int | float | str]
NAMES = {" ": "blank", "\n": "line end", "\t": "tab", "\u00a0": "no-break space"}


def plot_tables(splits: Iterable[Statistics]) -> dict[str, list[Row]]:
    """Build the tables that DVC plots, over all splits."""
    total = Statistics()
    for split in splits:
        total.merge(split)
    characters = [(NAMES.get(each, each), n) for each, n in _top(total.characters)[:PLOT_ROWS]]
    return {
        "words": _rows("word", "count", total.frequent_words()[:PLOT_ROWS]),
        "characters": _rows("character", "count", characters),
        "scripts": _rows("script", "letters", total.scripts().most_common()),
        "lengths": _rows("words", "documents", total.document_lengths()),
    }


def _rows(name: str, number: str, counts: list[tuple[str, int]]) -> list[Row]:
    """Build at least one row: an empty table can't be plotted, and equations have no letters."""
    return [{name: each, number: count} for each, count in counts or [("none", 0)]]
