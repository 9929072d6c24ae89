"""What has to be done to our values so that an architecture of llama.cpp computes the same.

Each takes whole rows, those of whole heads where there are heads, and not all of a weight.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.export.weights import Array

Change = Callable[[Array], Array]


def unchanged(rows: Array) -> Array:
    """The same values."""
    return rows


def times(factor: float) -> Change:
    """Multiplies by a factor."""
    return lambda rows: rows * np.float32(factor)


def pairs_side_by_side(head_size: int) -> Change:
    """Reorders the rows of each head so that RoPE's pairs lie side by side.

    Ours turns rows i and i + D/2 of a head together, llama.cpp's `llama` rows 2i and 2i + 1.
    """

    def permuted(rows: Array) -> Array:
        halves: npt.NDArray[Any] = rows.reshape(-1, 2, head_size // 2, *rows.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)

    return permuted
