"""What is kept of each document to find its duplicates: one exact key, and keys of bands.

Two documents are alike when the sets of their runs of five words are: their Jaccard index is
the share of runs that both have. A MinHash signature has, at each place, equal values with just
that probability (Broder 1997). The signature is cut into bands of ``rows`` values; documents
that agree in a whole band are candidates (Indyk and Motwani 1998), and are then compared for
true. Rensa computes the signatures.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash

from atlas.cleaning.words import JOIN, Hashes, distinct, hash_words, runs

RUN = 5  # words, as in the large pipelines (dolma, datatrove)
SIGNATURE = 128  # values at the most
RECALL = 0.98  # of pairs that are just as alike as the threshold; more alike, more recall
BATCH = 1 << 20  # characters that are sketched at once
SEED = 1
NO_KEY = np.uint64(0)  # of documents with fewer words than a run: they have exact copies alone


@dataclass(frozen=True)
class Bands:
    """How a signature is cut: ``count`` bands of ``rows`` values."""

    count: int
    rows: int

    @classmethod
    def of(cls, similarity: float) -> "Bands":
        """The longest bands, which give the fewest candidates, that miss nearly no pair.

        A pair of Jaccard index s agrees in one band of r rows with probability s**r, in at
        least one of b bands with 1 - (1 - s**r)**b.
        """
        fitting = [
            cls(SIGNATURE // rows, rows)
            for rows in range(1, SIGNATURE)
            if 1 - (1 - similarity**rows) ** (SIGNATURE // rows) >= RECALL
        ]
        return fitting[-1] if fitting else cls(SIGNATURE, 1)


class Sketcher:
    """Collects documents and computes the keys of their bands, many documents at once."""

    def __init__(self, bands: Bands) -> None:
        self._bands = bands
        self._waiting: list[str] = []
        self._size = 0
        self._done: list[Hashes] = []

    def add(self, text: str) -> None:
        """Adds the next document."""
        self._waiting.append(text)
        self._size += len(text)
        if self._size >= BATCH:
            self._sketch()

    def keys(self) -> Hashes:
        """The keys of all documents that were added. (bands, documents)."""
        self._sketch()
        return np.concatenate(self._done, axis=1)

    def _sketch(self) -> None:
        found = runs(hash_words(self._waiting), RUN)
        offsets = [0, *found.ends.tolist()]
        length = self._bands.count * self._bands.rows
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(found.hashes, offsets, length, SEED)
        signatures = np.array(matrix.to_rows(), np.uint64).reshape(
            len(self._waiting), self._bands.count, self._bands.rows
        )
        keys = np.zeros(signatures.shape[:2], np.uint64)
        for row in range(self._bands.rows):
            keys = keys * JOIN + signatures[:, :, row] + np.uint64(1)
        keys[found.counts == 0] = NO_KEY
        self._done.append(np.ascontiguousarray(keys.T))
        self._waiting, self._size = [], 0


def exact_key(text: str) -> bytes:
    """16 bytes that two texts share only if they are equal."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def word_runs(text: str) -> Hashes:
    """The distinct runs of words of a text, sorted, to be compared with another's. (runs,)."""
    return distinct(runs(hash_words([text]), RUN).hashes)
