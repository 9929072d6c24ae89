"""What a program of a decoder gives, whichever runtime runs it."""

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.export.check.runtime import Runtime

Array = npt.NDArray[Any]


class ProgramRuntime(Runtime):
    """Keeps what the program says of the past, and hands it back."""

    past: list[Array]

    @abstractmethod
    def empty_past(self) -> list[Array]:
        """Keys and values of no tokens."""

    @abstractmethod
    def run(self, ids: Array, mask: Array, past: list[Array]) -> list[Array]:
        """Logits, and the keys and values of all tokens."""

    def logits(self, ids: list[int], position: int) -> npt.NDArray[np.float32]:
        """Logits (T, V) after each of ``ids`` (T), the first of which is at ``position``."""
        past = self.past if position else self.empty_past()
        mask = np.ones((1, position + len(ids)), np.int64)
        logits, *self.past = self.run(np.array([ids], np.int64), mask, past)
        found: npt.NDArray[np.float32] = logits[0]
        return found
