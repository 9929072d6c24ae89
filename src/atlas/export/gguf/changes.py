"""What has to be done to our values so that an architecture of llama.cpp computes the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def unchanged(values: Array) -> Array:
    """The same values."""
    return values


def times(factor: float) -> Callable[[Array], Array]:
    """Multiplies by a factor."""
    return lambda values: values * np.float32(factor)


def pairs_side_by_side(heads: int) -> Callable[[Array], Array]:
    """Reorders the rows of each head so that RoPE's pairs lie side by side.

    Ours turns rows i and i + D/2 of a head together, llama.cpp's `llama` rows 2i and 2i + 1.
    """

    def permuted(values: Array) -> Array:
        halves: npt.NDArray[Any] = values.reshape(heads, 2, len(values) // heads // 2, -1)
        return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)

    return permuted
