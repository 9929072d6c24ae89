"""Windows of tokens: what training reads in shuffled order, and evaluation from end to end.

A window holds T + 1 tokens: T inputs, and for each the one after it as its target. Packed windows
run over the borders of documents; padded ones hold one document, or a part of it, each::

    tokens              a b c d e | f g |      (T = 3, | the end of a document)
    packed, evaluation  |abc  cde|  |fg|.
    padded              |abc  cde|  |fg|

B is the batch, T the context length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError
from atlas.tokens.shards import TokenIndex, TokenSplit

PROMPT_TOKENS = 8
NO_TARGET = -100  # where a window that is filled up has nothing to predict

Window = npt.NDArray[np.int64]  # at most T + 1 tokens
Rows = npt.NDArray[np.int64]  # windows filled up with NO_TARGET, (B, T + 1)
Array = TypeVar("Array")


class Batch(NamedTuple, Generic[Array]):
    """Windows side by side, in NumPy or in PyTorch.

    Attributes:
        inputs: (B, T); the padding id where a window is filled up, always on its right.
        targets: the token after each input, (B, T); ``NO_TARGET`` where a window is filled up, and
            where the next token is of a question.
        mask: whether an input is a token of the text, (B, T).
    """

    inputs: Array
    targets: Array
    mask: Array

    @classmethod
    def of(cls, rows: Any, index: TokenIndex) -> "Batch[Any]":
        """The inputs and targets of windows in rows, (B, T + 1)."""
        targets = rows[:, 1:]
        mask = targets != NO_TARGET
        inputs = rows[:, :-1] * mask + index.pad * ~mask
        if index.separator is not None:
            answering = (inputs == index.separator).cumsum(1) > 0
            targets = targets * answering + NO_TARGET * ~answering
        return cls(inputs, targets, mask)

    def predicted(self) -> int:
        """How many tokens there are to predict."""
        return int((self.targets != NO_TARGET).sum())  # type: ignore[attr-defined]


class Layout(Protocol):
    """How a split is cut into windows."""

    def __len__(self) -> int:
        """Windows in which every token of the split is predicted exactly once."""

    def window(self, number: int) -> Window:
        """One of these."""

    def per_epoch(self) -> int:
        """Windows that training sees in an epoch."""

    def largest_offset(self) -> int:
        """The most tokens that an epoch may leave out at the start, so as to differ from others."""

    def training_window(self, number: int, offset: int) -> Window:
        """One window of an epoch that begins after ``offset`` tokens."""


@dataclass(frozen=True)
class Packed:
    """Windows that run over the borders of documents."""

    tokens: TokenSplit
    context_length: int

    def __len__(self) -> int:
        return -(-len(self.tokens) // self.context_length)

    def window(self, number: int) -> Window:
        """From the token before; before the first one is the end of a text."""
        start = number * self.context_length
        stop = min(start + self.context_length, len(self.tokens))
        found = self.tokens.read(max(start - 1, 0), stop)
        return found if start else np.concatenate([[self.tokens.index.eos], found])

    def per_epoch(self) -> int:
        """Windows that fit, wherever in the first one an epoch begins."""
        if len(self.tokens) <= self.context_length:
            return 0
        return max((len(self.tokens) - self.context_length) // self.context_length, 1)

    def largest_offset(self) -> int:
        """Less than a window."""
        last = self.per_epoch() * self.context_length + 1
        return min(len(self.tokens) - last, self.context_length - 1)

    def training_window(self, number: int, offset: int) -> Window:
        """T + 1 tokens."""
        start = offset + number * self.context_length
        return self.tokens.read(start, start + self.context_length + 1)


@dataclass(frozen=True)
class Padded:
    """Windows of one document each; a document that is longer than one gets several."""

    tokens: TokenSplit
    context_length: int

    @cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """The number of windows of all documents up to each, (documents,)."""
        lengths = np.diff(self.tokens.document_ends, prepend=0)
        return np.cumsum(-(-lengths // self.context_length))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def window(self, number: int) -> Window:
        """From the token before; before the first one of a document is the end of a text."""
        document = int(np.searchsorted(self._ends, number, side="right"))
        ends = self.tokens.document_ends
        first = int(ends[document - 1]) if document else 0
        nth = number - (int(self._ends[document - 1]) if document else 0)
        start = first + nth * self.context_length
        stop = min(start + self.context_length, int(ends[document]))
        found = self.tokens.read(start - 1 if nth else start, stop)
        return found if nth else np.concatenate([[self.tokens.index.eos], found])

    def per_epoch(self) -> int:
        """All windows."""
        return len(self)

    def largest_offset(self) -> int:
        """None: windows begin where documents do."""
        return 0

    def training_window(self, number: int, offset: int) -> Window:
        """The same as in evaluation."""
        return self.window(number + offset)


LAYOUTS: dict[str, type[Packed] | type[Padded]] = {"packed": Packed, "padded": Padded}


def layout_of(tokens: TokenSplit, context_length: int) -> Layout:
    """The windows of a split, as tokenize was told to cut it.

    Raises:
        AtlasError: a question and its answer would not stand in one window.
    """
    if tokens.index.separator is not None and len(tokens):
        longest = int(np.diff(tokens.document_ends, prepend=0).max())
        if longest > context_length:
            raise AtlasError(
                f"model.context_length is {context_length}: the longest question of "
                f"{tokens.name} has {longest} tokens with its answer; give at least so many"
            )
    return LAYOUTS[tokens.index.windows](tokens, context_length)


@dataclass(frozen=True)
class TrainingWindows:
    """Windows in an order that depends on the seed and the step alone.

    An epoch visits each window once, in a random order. Nothing is remembered between steps, so a
    resumed run sees the same data.
    """

    tokens: TokenSplit
    context_length: int
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        if not self.per_epoch:
            raise AtlasError(
                f"model.context_length: a window of {self.context_length} is longer than the "
                f"training text ({len(self.tokens)} tokens); use a shorter one, or more text"
            )

    @cached_property
    def layout(self) -> Layout:
        """How the tokens are cut."""
        return layout_of(self.tokens, self.context_length)

    @property
    def per_epoch(self) -> int:
        """Windows that an epoch visits."""
        return self.layout.per_epoch()

    def rows(self, step: int, share: slice = slice(None)) -> Rows:
        """The windows of a step, or a share of them."""
        windows = [self.layout.training_window(*place) for place in self.places(step)[share]]
        return stack(windows, self.context_length)

    def places(self, step: int) -> list[tuple[int, int]]:
        """Which windows a step sees: number and offset of each."""
        first = step * self.batch_size
        return [self._place(visit) for visit in range(first, first + self.batch_size)]

    def _place(self, visit: int) -> tuple[int, int]:
        epoch, position = divmod(visit, self.per_epoch)
        offset, order = _epoch_order(self.seed, epoch, self.per_epoch, self.layout.largest_offset())
        return int(order[position]), offset


@lru_cache(maxsize=2)
def _epoch_order(
    seed: int, epoch: int, windows: int, largest_offset: int
) -> tuple[int, npt.NDArray[np.int64]]:
    generator = np.random.default_rng([seed, epoch])
    offset = int(generator.integers(largest_offset + 1))
    return offset, generator.permutation(windows)


@dataclass(frozen=True)
class EvaluationWindows:
    """Windows side by side, so that each token of a split is predicted exactly once."""

    tokens: TokenSplit
    context_length: int
    batch_size: int

    def __post_init__(self) -> None:
        if not len(self.tokens):
            raise AtlasError(
                f"the {self.tokens.name} split holds no tokens: give it a larger share "
                f"(clean.{self.tokens.name}), cut documents (clean.split_by=position), or use "
                "more text"
            )

    @cached_property
    def layout(self) -> Layout:
        """How the tokens are cut."""
        return layout_of(self.tokens, self.context_length)

    def all(self) -> Iterator[Batch[npt.NDArray[Any]]]:
        """Every window, in batches of at most ``batch_size``."""
        return self._batches(range(len(self.layout)))

    def spread(self, count: int) -> Iterator[Batch[npt.NDArray[Any]]]:
        """At most ``count`` windows, evenly spread over the split; always the same."""
        windows = len(self.layout)
        chosen = np.linspace(0, windows - 1, min(count, windows)).round().astype(int)
        return self._batches([int(number) for number in chosen])

    def _batches(self, numbers: Sequence[int]) -> Iterator[Batch[npt.NDArray[Any]]]:
        for first in range(0, len(numbers), self.batch_size):
            windows = [self.layout.window(n) for n in numbers[first : first + self.batch_size]]
            yield Batch.of(stack(windows, self.context_length), self.tokens.index)


def stack(windows: Sequence[Window], context_length: int) -> Rows:
    """Windows below each other, filled up on the right to T + 1."""
    rows = np.full((len(windows), context_length + 1), NO_TARGET, np.int64)
    for row, window in zip(rows, windows, strict=True):
        row[: len(window)] = window
    return rows


def document_prompts(split: TokenSplit, count: int) -> list[list[int]]:
    """The first tokens of documents spread evenly over a split, or their questions.

    The end-of-text token is left out: a model that reads it starts another document.
    """
    ends = split.document_ends
    chosen = np.linspace(0, len(ends) - 1, min(count, len(ends))).round().astype(int)
    prompts = []
    for number in chosen:
        ids = split.read(int(ends[number - 1]) if number else 0, int(ends[number])).tolist()
        separator = split.index.separator
        if separator is not None:
            prompts.append(ids[: ids.index(separator) + 1])
        else:
            text = ids[:-1] if ids[-1] == split.index.eos else ids
            prompts.append(text[:PROMPT_TOKENS] or ids)
    return prompts
