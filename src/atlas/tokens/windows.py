"""Windows of tokens: what training reads in shuffled order, and evaluation from end to end.

B is the batch, T the context length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atlas.cleaning.splits import Split
from atlas.errors import AtlasError
from atlas.tokens.index import TokenIndex
from atlas.tokens.shards import Ids, open_shard, shard_path

NO_TARGET = -100  # where a padded window has nothing to predict

Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]  # inputs and targets, (B, T) each


class TokenSplit:
    """The tokens of a split, as one sequence over all its shards.

    Attributes:
        bytes: size of the text that they stand for, in UTF-8.
        end_of_text: the id before the first token.
        tokenizer_sha256: of the tokenizer that made them.
    """

    def __init__(self, folder: Path, split: Split) -> None:
        """Maps the shards of a split.

        Raises:
            AtlasError: a shard is missing, damaged, or of another tokenizer than the index.
        """
        index = TokenIndex.read(folder)
        entry = index.splits[split]
        self._shards: list[Ids] = [
            open_shard(shard_path(folder, split, number), count, index.tokenizer_sha256)
            for number, count in enumerate(entry.shards)
            if count
        ]
        self._starts = np.cumsum([0, *(len(shard) for shard in self._shards)])
        self.bytes = entry.bytes
        self.end_of_text = index.end_of_text
        self.tokenizer_sha256 = index.tokenizer_sha256

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The tokens from ``start`` up to ``stop``, across shards."""
        parts = []
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            offset = self._starts[number]
            end = min(stop, int(self._starts[number + 1]))
            parts.append(self._shards[number][start - offset : end - offset].astype(np.int64))
            start, number = end, number + 1
        return np.concatenate(parts) if parts else np.empty(0, np.int64)


@dataclass(frozen=True)
class TrainingWindows:
    """Windows in an order that depends on the seed and the step alone.

    An epoch cuts the tokens into windows from a random first one on, and visits each once in
    a random order. Nothing is remembered between steps, so a resumed run sees the same data.
    """

    tokens: TokenSplit
    context_length: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if self.windows_per_epoch < 1:
            raise AtlasError(
                f"model.context_length: a window of {self.context_length} is longer than the "
                f"training text ({len(self.tokens)} tokens); use a shorter one, or more text"
            )

    @property
    def windows_per_epoch(self) -> int:
        """Windows that fit, wherever in the first one an epoch begins."""
        length = len(self.tokens)
        if length <= self.context_length:
            return 0
        return max((length - self.context_length) // self.context_length, 1)

    def batch(self, step: int) -> Batch:
        """The inputs and targets, (B, T) each, of a step."""
        first = step * self.batch_size
        return _stack(
            self.tokens.read(start, start + self.context_length + 1)
            for start in self.starts(range(first, first + self.batch_size))
        )

    def starts(self, visits: Sequence[int]) -> list[int]:
        """Where in the tokens the n-th windows visited begin."""
        return [self._start(visit) for visit in visits]

    def _start(self, visit: int) -> int:
        epoch, position = divmod(visit, self.windows_per_epoch)
        offset, order = _epoch_order(
            self.seed, epoch, self.windows_per_epoch, self._largest_offset()
        )
        return offset + int(order[position]) * self.context_length

    def _largest_offset(self) -> int:
        last = self.windows_per_epoch * self.context_length + 1
        return min(len(self.tokens) - last, self.context_length - 1)


@lru_cache(maxsize=2)
def _epoch_order(
    seed: int, epoch: int, windows: int, largest_offset: int
) -> tuple[int, npt.NDArray[np.int64]]:
    generator = np.random.default_rng([seed, epoch])
    offset = int(generator.integers(largest_offset + 1))
    return offset, generator.permutation(windows)


@dataclass(frozen=True)
class EvaluationWindows:
    """Windows side by side, so that each token of a split is predicted exactly once.

    The first token is predicted from the end-of-text id; the last window is padded.
    """

    tokens: TokenSplit
    context_length: int
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.context_length)

    def all(self) -> Iterator[Batch]:
        """Every window, in batches of at most ``batch_size``."""
        return self._batches(range(len(self)))

    def spread(self, count: int) -> Iterator[Batch]:
        """At most ``count`` windows, evenly spread over the split; always the same."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        return self._batches([int(number) for number in chosen])

    def _batches(self, numbers: Sequence[int]) -> Iterator[Batch]:
        for first in range(0, len(numbers), self.batch_size):
            yield _stack(self._window(n) for n in numbers[first : first + self.batch_size])

    def _window(self, number: int) -> npt.NDArray[np.int64]:
        start = number * self.context_length
        before = start - 1
        found = self.tokens.read(max(before, 0), min(start + self.context_length, len(self.tokens)))
        if before < 0:
            found = np.concatenate([[self.tokens.end_of_text], found])
        missing = self.context_length + 1 - len(found)
        return np.pad(found, (0, missing), constant_values=NO_TARGET)


def _stack(windows: Iterator[npt.NDArray[np.int64]]) -> Batch:
    stacked = np.stack(list(windows))
    inputs, targets = stacked[:, :-1], stacked[:, 1:]
    return np.maximum(inputs, 0), targets  # padding becomes id 0 as an input
