"""How much of what validates and tests stands in the training text as well.

Counted are runs of 13 words, as for GPT-3 (Brown et al. 2020): long enough that two texts hardly
ever share one by chance. Where there are too many to hold, those are counted whose hash falls
into a sample.
"""

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.words import Hashes, Rows, runs

RUN = 13  # words
MOST_RUNS = 1 << 18  # of val, or of test, that are held
BYTES_A_WORD = 4  # less than there are, so that the sample rather grows


def sampling(size: int) -> int:
    """One run in so many is looked at, a power of two, where a split has so many bytes."""
    return 1 << max(0, (size // BYTES_A_WORD - 1) // MOST_RUNS).bit_length()


def sampled_runs(words: Rows, one_in: int) -> Hashes:
    """The runs of some texts that are in the sample. (runs,)."""
    found = runs(words, RUN).hashes
    sampled: Hashes = found[found % np.uint64(one_in) == 0]
    return sampled


def mark(held_out: Hashes, training: Hashes, seen: NDArray[np.bool_]) -> None:
    """Marks those held-out runs (sorted, each once) that are among the training text's. (runs,)."""
    if len(held_out):
        place = np.minimum(np.searchsorted(held_out, training), len(held_out) - 1)
        seen[place[held_out[place] == training]] = True
