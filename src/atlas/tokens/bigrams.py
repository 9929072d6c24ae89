"""Unigram and bigram statistics: the n-gram baseline.

Smoothing is that of Witten and Bell (1991, IEEE Transactions on Information Theory 37, 1085): if n
tokens followed a token, t of them distinct, unseen tokens get the share t / (n + t). It is divided
in proportion to the unigram counts, plus one for each token, so that none is impossible::

    P(b | a) = (count(a, b) + t(a) P(b)) / (n(a) + t(a)),   P(b) = (count(b) + 1) / (N + V)

V is the size of the vocabulary, N the number of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import NO_TARGET, EvaluationWindows

AT_ONCE = 1 << 20  # tokens whose pairs are sorted together
Ids = npt.NDArray[Any]
Losses = npt.NDArray[np.float64]
Table = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class BigramCounts:
    """Counts of the pairs of tokens that occur in a text."""

    keys: npt.NDArray[np.int64]  # first token times V plus second token, sorted, (pairs,)
    counts: npt.NDArray[np.int64]  # (pairs,)
    vocab_size: int
    read: int  # tokens, including prompts

    @classmethod
    def count(cls, tokens: TokenSplit, context_length: int) -> "BigramCounts":
        """Count each target token of a split together with the token before it."""
        vocab_size = tokens.index.vocab_size
        tables = [(np.empty(0, np.int64), np.empty(0, np.int64))]
        read = 0
        windows = EvaluationWindows(tokens, context_length, max(1, AT_ONCE // context_length))
        for batch in tqdm(windows.all(), desc="count", unit="batch"):
            known = batch.targets != NO_TARGET
            new, counts = np.unique(
                batch.inputs[known].astype(np.int64) * vocab_size + batch.targets[known],
                return_counts=True,
            )
            tables.append((new, counts))
            if sum(len(keys) for keys, _ in tables[1:]) > len(tables[0][0]):
                tables = [_merged(tables)]  # merge only when the total has doubled
            read += int(batch.mask.sum())
        return cls(*_merged(tables), vocab_size, read)

    @property
    def first(self) -> npt.NDArray[np.int64]:
        """First token of each pair, (pairs,)."""
        return self.keys // self.vocab_size

    @property
    def second(self) -> npt.NDArray[np.int64]:
        """Second token of each pair, (pairs,)."""
        return self.keys % self.vocab_size

    def unigram(self) -> npt.NDArray[np.float64]:
        """P(b) of every token, (V,)."""
        counts = np.bincount(self.second, self.counts, self.vocab_size)
        return np.asarray((counts + 1) / (counts.sum() + self.vocab_size))

    def followers(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return how many tokens, and how many distinct ones, followed each token, (V,) each."""
        totals = np.bincount(self.first, self.counts, self.vocab_size).astype(np.float64)
        distinct = np.bincount(self.first, minlength=self.vocab_size).astype(np.float64)
        return totals, distinct

    def unigram_losses(self, tokens: Ids) -> Losses:
        """Return -log P(b) in nats, (N,)."""
        return np.asarray(-np.log(self.unigram()[tokens]))

    def bigram_losses(self, before: Ids, tokens: Ids) -> Losses:
        """Return -log P(b | a) in nats, (N,)."""
        totals, distinct = (each[before] for each in self.followers())
        unigram = self.unigram()[tokens]
        pairs = before.astype(np.int64) * self.vocab_size + tokens
        index = np.searchsorted(self.keys, pairs).clip(max=max(0, len(self.keys) - 1))
        seen = self.counts[index] * (self.keys[index] == pairs) if len(self.keys) else 0.0
        divisor = np.maximum(totals + distinct, 1)
        share = np.where(distinct > 0, (seen + distinct * unigram) / divisor, unigram)
        return np.asarray(-np.log(share))

    def bigram_table(self) -> npt.NDArray[np.float32]:
        """Return log P(b | a) of all pairs of tokens, (V, V)."""
        totals, distinct = self.followers()
        unseen = np.where(distinct > 0, distinct / np.maximum(totals + distinct, 1), 1.0)
        unigram = self.unigram()
        table = np.log(unseen)[:, None].astype(np.float32) + np.log(unigram).astype(np.float32)
        table[self.first, self.second] = -self.bigram_losses(self.first, self.second)
        return table


def _merged(tables: Sequence[Table]) -> Table:
    """Merge tables of keys and counts into one with sorted keys."""
    keys, counts = (np.concatenate(each) for each in zip(*tables, strict=True))
    merged, index = np.unique(keys, return_inverse=True)
    return merged, np.bincount(index, counts, len(merged)).astype(np.int64)
