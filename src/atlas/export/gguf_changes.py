"""What has to be done to our values so that an architecture of llama.cpp computes the same."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# silu(k x) / k and gelu(k x) / k come as near to relu(x) as k is large; beyond these, what is
# near zero loses bits.
RELU_BY_ARCHITECTURE = {"llama": 4096.0, "mpt": 1024.0}


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


def constant_half(shape: tuple[int, int], activation: str) -> dict[str, Array]:
    """The half of a gated unit that makes it a plain one: it gives the same for every input.

    silu(gate) * up, with our matrix as the gate and an ``up`` that is 1 everywhere, is plain
    SiLU; with a gate that is k times as large and an ``up`` of 1/k, nearly ReLU.

    Args:
        shape: of the matrix, (F, C).
        activation: silu or relu.

    Returns:
        Its weight and its bias.
    """
    constant = 1.0 if activation == "silu" else 1 / RELU_BY_ARCHITECTURE["llama"]
    return {
        "weight": np.zeros(shape, np.float32),
        "bias": np.full(shape[0], constant, np.float32),
    }
