"""Cut tokens into windows: in shuffled order for training, in sequence for evaluation.

A window holds T + 1 tokens: T inputs, each with the next token as its target. Packed windows run
across documents; a padded window holds one document or a part of it::

    tokens              a b c d e | f g |      (T = 3, | the end of a document)
    packed, evaluation  |abc  cde|  |fg|.
    padded              |abc  cde|  |fg|

B is the batch, T the context length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError
from atlas.tokens.shards import TokenIndex, TokenSplit

PROMPT_TOKENS = 8
NO_TARGET = -100  # target of positions that are not predicted; PyTorch's ignore_index

Window = npt.NDArray[np.int64]  # at most T + 1 tokens
Rows = npt.NDArray[np.int64]  # windows padded with NO_TARGET, (B, T + 1)
Array = TypeVar("Array")


class TokenBatch(NamedTuple, Generic[Array]):
    """A batch of windows, in NumPy or in PyTorch, (B, T) each."""

    inputs: Array  # padded on the right
    targets: Array  # the token after each input; NO_TARGET for padding and within prompts
    mask: Array  # True where an input is text rather than padding

    @classmethod
    def from_rows(cls, rows: Any, index: TokenIndex) -> "TokenBatch[Any]":
        """Split windows, (B, T + 1), into inputs and targets."""
        targets = rows[:, 1:]
        mask = targets != NO_TARGET
        inputs = rows[:, :-1] * mask + index.pad * ~mask
        if index.separator is not None:
            answering = (inputs == index.separator).cumsum(1) > 0
            targets = targets * answering + NO_TARGET * ~answering
        return cls(inputs, targets, mask)

    def num_targets(self) -> int:
        """Return the number of tokens to predict."""
        return int((self.targets != NO_TARGET).sum())  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Windows:
    """A split cut into windows, as ``tokenize.windows`` sets: packed or padded.

    ``len`` is the number of windows that predict every token exactly once.
    """

    tokens: TokenSplit
    context_length: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.tokens.index.separator is not None and len(self.tokens):
            longest = int(np.diff(self.tokens.document_ends, prepend=0).max())
            if longest > self.context_length:
                raise AtlasError(
                    f"model.context_length is {self.context_length}: the longest prompt of "
                    f"{self.tokens.name} has {longest} tokens with its answer; set it to {longest}"
                )

    @cached_property
    def packed(self) -> bool:
        """True if windows run across documents."""
        return self.tokens.index.windows == "packed"

    @cached_property
    def _document_ends(self) -> npt.NDArray[np.int64]:
        """Positions where documents end, (documents,); a packed split counts as one document."""
        return np.array([len(self.tokens)]) if self.packed else self.tokens.document_ends

    @cached_property
    def _window_ends(self) -> npt.NDArray[np.int64]:
        """Cumulative number of windows, (documents,)."""
        lengths = np.diff(self._document_ends, prepend=0)
        return np.cumsum(-(-lengths // self.context_length))

    def __len__(self) -> int:
        return int(self._window_ends[-1]) if len(self._window_ends) else 0

    def window(self, number: int) -> Window:
        """Return a window preceded by one token, which is ``eos`` at the start of a document."""
        document = int(np.searchsorted(self._window_ends, number, side="right"))
        first = int(self._document_ends[document - 1]) if document else 0
        nth = number - (int(self._window_ends[document - 1]) if document else 0)
        start = first + nth * self.context_length
        stop = min(start + self.context_length, int(self._document_ends[document]))
        found = self.tokens.read(start - 1 if nth else start, stop)
        return found if nth else np.concatenate([[self.tokens.index.eos], found])


@dataclass(frozen=True)
class TrainingWindows(Windows):
    """Training windows in an order that depends only on seed and step.

    An epoch visits each window once, in random order. There is no state between steps, so a resumed
    run sees the same data. Packed epochs differ in the tokens that they skip at the start.
    """

    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.per_epoch:
            raise AtlasError(
                f"model.context_length: a window of {self.context_length} is longer than the "
                f"training text ({len(self.tokens)} tokens); use a shorter one, or more text"
            )

    @cached_property
    def per_epoch(self) -> int:
        """Number of windows in an epoch; they fit at any offset."""
        if not self.packed:
            return len(self)
        spare = len(self.tokens) - self.context_length
        return max(spare // self.context_length, 1) if spare > 0 else 0

    def rows(self, step: int, share: slice = slice(None)) -> Rows:
        """Return the windows of a step, or a share of them, (B, T + 1)."""
        windows = [self.training_window(*place) for place in self.places(step)[share]]
        return stack(windows, self.context_length)

    def training_window(self, number: int, offset: int) -> Window:
        """Return a window of an epoch that skips ``offset`` tokens: T + 1 tokens if packed."""
        if not self.packed:
            return self.window(number)
        start = offset + number * self.context_length
        return self.tokens.read(start, start + self.context_length + 1)

    def places(self, step: int) -> list[tuple[int, int]]:
        """Return the number and offset of each window of a step."""
        first = step * self.batch_size
        return [self._place(visit) for visit in range(first, first + self.batch_size)]

    def _place(self, visit: int) -> tuple[int, int]:
        epoch, position = divmod(visit, self.per_epoch)
        spare = len(self.tokens) - self.per_epoch * self.context_length - 1
        max_offset = min(spare, self.context_length - 1) if self.packed else 0
        offset, order = _epoch_order(self.seed, epoch, self.per_epoch, max_offset)
        return int(order[position]), offset


@lru_cache(maxsize=2)
def _epoch_order(
    seed: int, epoch: int, windows: int, max_offset: int
) -> tuple[int, npt.NDArray[np.int64]]:
    generator = np.random.default_rng([seed, epoch])
    offset = int(generator.integers(max_offset + 1))
    return offset, generator.permutation(windows)


@dataclass(frozen=True)
class EvaluationWindows(Windows):
    """Consecutive windows that predict each token of a split exactly once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.tokens):
            raise AtlasError(
                f"the {self.tokens.name} split has no tokens: use more text, a larger share "
                f"(clean.{self.tokens.name}), or cut documents (clean.split_by=position)"
            )

    def all(self) -> Iterator[TokenBatch[npt.NDArray[Any]]]:
        """Yield every window, in batches of at most ``batch_size``."""
        return self.spread(len(self))

    def spread(self, count: int) -> Iterator[TokenBatch[npt.NDArray[Any]]]:
        """Yield at most ``count`` windows in batches, always the same, spread over the split."""
        chosen = spread(len(self), count)
        for first in range(0, len(chosen), self.batch_size):
            windows = [self.window(number) for number in chosen[first : first + self.batch_size]]
            yield TokenBatch.from_rows(stack(windows, self.context_length), self.tokens.index)


def spread(total: int, count: int) -> list[int]:
    """Choose at most ``count`` of ``total`` numbers, spread evenly."""
    chosen: list[int] = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
    return chosen


def stack(windows: Sequence[Window], context_length: int) -> Rows:
    """Stack windows into rows, padded on the right, (B, T + 1)."""
    rows = np.full((len(windows), context_length + 1), NO_TARGET, np.int64)
    for row, window in zip(rows, windows, strict=True):
        row[: len(window)] = window
    return rows


def document_prompts(split: TokenSplit, count: int) -> list[list[int]]:
    """Return the first tokens, or the prompts, of documents spread evenly over a split.

    They don't include the end-of-text token, after which a model starts another document.
    """
    ends = split.document_ends
    prompts = []
    for number in spread(len(ends), count):
        ids = split.read(int(ends[number - 1]) if number else 0, int(ends[number])).tolist()
        separator = split.index.separator
        if separator is not None:
            prompts.append(ids[: ids.index(separator) + 1])
        else:
            text = ids[:-1] if ids[-1] == split.index.eos else ids
            prompts.append(text[:PROMPT_TOKENS] or ids)
    return prompts
