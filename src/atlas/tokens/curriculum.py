"""The shortest documents first (curriculum learning, Bengio et al. 2009).

Where a rule is easy to see in short questions and hopeless to guess from long ones, as that of a
sum modulo ten, a model that begins with the short ones finds it and then needs only to extend it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

DRAWS = 1  # keeps the random numbers apart from those of epochs


@dataclass(frozen=True)
class Curriculum:
    """The first steps of a training, in which ever longer windows are drawn.

    As many spans of steps, all alike, as there are lengths; each adds the next length.

    Attributes:
        lengths: of each window, (windows,).
        steps: that it takes until all are drawn from.
        seed: of the draws.
    """

    lengths: npt.NDArray[np.int64]
    steps: int
    seed: int

    @cached_property
    def _shortest_first(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.lengths, kind="stable")

    @cached_property
    def _known(self) -> npt.NDArray[np.int64]:
        """How many windows are at most as long as each length that occurs."""
        _, counts = np.unique(self.lengths, return_counts=True)
        known: npt.NDArray[np.int64] = np.cumsum(counts)
        return known

    def windows(self, step: int, count: int) -> list[int]:
        """Numbers of ``count`` windows for a step (0-based) of the curriculum."""
        known = int(self._known[step * len(self._known) // self.steps])
        drawn = np.random.default_rng([self.seed, step, DRAWS]).integers(known, size=count)
        chosen: list[int] = self._shortest_first[drawn].tolist()
        return chosen
