"""What a program of a decoder gives, whichever runtime runs it."""

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.export.check.runtime import Runtime

Array = npt.NDArray[Any]


class ProgramRuntime(Runtime):
    """Keeps what the program says of the past, and hands it back.

    Attributes:
        shapes: of the keys and values that it takes, (batch, heads, past, head size) each.
        past: those of the tokens so far.
    """

    shapes: list[tuple[Any, ...]]
    past: list[Array]

    @abstractmethod
    def run(self, ids: Array, mask: Array, past: list[Array]) -> list[Array]:
        """Logits, and the keys and values of all tokens."""

    def logits(self, ids: list[int], position: int) -> npt.NDArray[np.float32]:
        """Logits (T, V) after each of ``ids`` (T), the first of which is at ``position``."""
        empty = [np.zeros((1, heads, 0, size), np.float32) for _, heads, _, size in self.shapes]
        past = self.past if position else empty
        mask = np.ones((1, position + len(ids)), np.int64)
        logits, *self.past = self.run(np.array([ids], np.int64), mask, past)
        found: npt.NDArray[np.float32] = logits[0]
        return found
