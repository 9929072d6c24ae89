"""Cut tokens into windows: in shuffled order for training, in sequence for evaluation.

A window holds T + 1 tokens: T inputs, each with the next token as its target. Packed windows run
across documents; a padded window holds one document or a part of it::

    tokens              a b c d e | f g |      (T = 3, | the end of a document)
    packed, evaluation  |abc  cde|  |fg|.
    padded              |abc  cde|  |fg|

With a document mask, training windows are packed, and the model keeps the documents in them apart;
evaluation windows are padded, which is the same for documents that fit into one.

If texts begin with a bos token that is not eos, it replaces the first input of every window, as in
llama.cpp's perplexity. B is the batch, T the context length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError
from atlas.params.mixture import visits_per_epoch
from atlas.tokens.shards import ENDS, GIVEN, ID_BITS, TokenIndex, TokenSplit

if TYPE_CHECKING:
    from atlas.params.schema import MixEntry

PROMPT_TOKENS = 8
NO_TARGET = -100  # target of positions that are not predicted; PyTorch's ignore_index

Window = npt.NDArray[np.int64]  # at most T + 1 tokens, with flags
Rows = npt.NDArray[np.int64]  # windows padded with NO_TARGET, (B, T + 1)
Array = TypeVar("Array")


class TokenBatch(NamedTuple, Generic[Array]):
    """A batch of windows, in NumPy or in PyTorch, (B, T) each."""

    inputs: Array  # padded on the right
    targets: Array  # the token after each input; NO_TARGET for padding and within prompts
    mask: Array  # True where an input is text rather than padding
    begins: Array | None = None  # True where a document begins; None if documents aren't kept apart

    @classmethod
    def from_rows(cls, rows: Any, index: TokenIndex) -> "TokenBatch[Any]":
        """Split windows, (B, T + 1), into inputs and targets."""
        before, after = rows[:, :-1], rows[:, 1:]
        mask = after != NO_TARGET
        predicted = mask & ((after & GIVEN) == 0)
        inputs = (before & ID_BITS) * mask + index.pad * ~mask
        targets = (after & ID_BITS) * predicted + NO_TARGET * ~predicted
        start = index.eos if index.bos is None else index.bos
        begins = None
        if index.document_mask:
            begins = mask & ((before & ENDS) != 0)
            inputs[begins] = start
        if index.bos is not None:
            inputs[:, 0] = start
        return cls(inputs, targets, mask, begins)

    def rows(self, chosen: slice) -> "TokenBatch[Any]":
        """Return some of the rows."""
        return TokenBatch(*(part if part is None else part[chosen] for part in self))  # type: ignore[index]

    def split(self, size: int) -> "Iterator[TokenBatch[Any]]":
        """Yield parts of ``size`` rows; the last may have fewer."""
        for first in range(0, len(self.inputs), size):  # type: ignore[arg-type]
            yield self.rows(slice(first, first + size))

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
                    f"model.context_length, or train.sequence_length, is {self.context_length}: "
                    f"the longest prompt of {self.tokens.name} has {longest} tokens with its "
                    f"answer; set it to {longest}"
                )

    @cached_property
    def packed(self) -> bool:
        """True if windows run across documents."""
        return self.tokens.index.crosses_documents

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
        found = self.tokens.read_flagged(start - 1 if nth else start, stop)
        return found if nth else np.concatenate([[self.tokens.index.eos], found])


class Source(NamedTuple):
    """A part of the training text with windows of its own: a corpus of a mix, or all of it.

    An epoch visits ``quota`` windows of it: all of them once, or as often as the mix says. Visits
    go through all windows in random order, then again in another one. A fraction of a window is
    carried over to the next epoch.
    """

    seed: tuple[int, ...]
    first: int  # token of the first window if packed, else number of the first window
    windows: int
    max_offset: int  # tokens that a pass may skip at the start, so that passes differ
    stride: int  # from one window to the next, in the unit of ``first``
    numerator: int  # of the quota
    denominator: int

    def visits_before(self, epoch: int) -> int:
        """Return the number of visits before an epoch."""
        return epoch * self.numerator // self.denominator

    def visits(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the place of the window of each visit, (visits,)."""
        passes = [np.empty(0, np.int64)]
        for number in range(start // self.windows, -(-stop // self.windows)):
            generator = np.random.default_rng([*self.seed, number])
            offset = int(generator.integers(self.max_offset + 1))
            order = generator.permutation(self.windows)
            order *= self.stride
            order += self.first + offset
            begin = number * self.windows
            passes.append(order[max(start - begin, 0) : stop - begin])
        return np.concatenate(passes)


@dataclass(frozen=True)
class TrainingWindows(Windows):
    """Training windows in an order that depends only on seed and step.

    An epoch visits each window once, in random order. There is no state between steps, so a resumed
    run sees the same data. Packed epochs differ in the tokens that they skip at the start.

    With a mix, the windows of each corpus hold no other text, and an epoch visits them as often as
    the mix says.
    """

    seed: int
    mix: Sequence["MixEntry"] | None = None

    @cached_property
    def packed(self) -> bool:
        """True if windows run across documents, which the model may keep apart."""
        return self.tokens.index.windows == "packed"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (begin, end) in self._ranges.items():
            if not self._cut(begin, end)[1]:
                what = f"corpus {name} of the mix" if self.mix else "training text"
                raise AtlasError(
                    f"model.context_length: a window of {self.context_length} is longer than the "
                    f"{what} ({end - begin} tokens); use a shorter one (train.sequence_length), or "
                    "more text"
                )
        if self.per_epoch < 1:
            raise AtlasError("corpus.mix: an epoch has less than one window: raise the weights")

    @cached_property
    def _ranges(self) -> dict[str, tuple[int, int]]:
        """First and last token of each corpus of the mix, or of the whole text."""
        if not self.mix:
            return {"": (0, len(self.tokens))}
        sizes = self.tokens.index.splits[self.tokens.name].corpora
        ends = np.cumsum([size.tokens for size in sizes.values()]).tolist()
        return dict(zip(sizes, pairwise([0, *ends]), strict=True))

    def _cut(self, begin: int, end: int) -> tuple[int, int, int]:
        """Cut tokens into windows.

        Returns the place of the first one, their number, and how many tokens can be skipped before
        them.
        """
        if self.packed:
            spare = end - begin - self.context_length
            windows = max(spare // self.context_length, 1) if spare > 0 else 0
            left = end - begin - windows * self.context_length - 1
            return begin, windows, min(left, self.context_length - 1)
        documents = np.searchsorted(self._document_ends, [begin, end], side="right")
        first, last = np.concatenate([[0], self._window_ends])[documents].tolist()
        return first, last - first, 0

    @cached_property
    def sources(self) -> dict[str, Source]:
        """The corpora of the mix, or the whole text."""
        cuts = {name: self._cut(*tokens) for name, tokens in self._ranges.items()}
        stride = self.context_length if self.packed else 1
        if not self.mix:
            ((first, windows, skip),) = cuts.values()
            return {"": Source((self.seed,), first, windows, skip, stride, windows, 1)}
        sizes = {
            name: cuts[name][1] * self.context_length if self.packed else end - begin
            for name, (begin, end) in self._ranges.items()
        }
        visits = visits_per_epoch(self.mix, sizes)
        sources = {}
        for number, (name, (first, windows, skip)) in enumerate(cuts.items(), start=1):
            quota = visits[name] * windows
            seed, ratio = (self.seed, number), quota.as_integer_ratio()
            sources[name] = Source(seed, first, windows, skip, stride, *ratio)
        return sources

    @cached_property
    def per_epoch(self) -> int | Fraction:
        """Number of windows in an epoch; a fraction is carried over to the next one."""
        quotas = [Fraction(each.numerator, each.denominator) for each in self.sources.values()]
        total = sum(quotas, Fraction(0))
        return int(total) if total.denominator == 1 else total

    def rows(self, step: int, share: slice = slice(None)) -> Rows:
        """Return the windows of a step, or a share of them, (B, T + 1)."""
        windows = [self.training_window(place) for place in self.places(step)[share]]
        return stack(windows, self.context_length)

    def training_window(self, place: int) -> Window:
        """Return the window at a place, which is its first token if packed, else its number."""
        if not self.packed:
            return self.window(place)
        window = self.tokens.read_flagged(place, place + self.context_length + 1)
        if self.tokens.index.document_mask:
            ends = self.tokens.document_ends
            first, last = np.searchsorted(ends, [place + 1, place + len(window) + 1])
            window[ends[first:last] - 1 - place] |= ENDS
        return window

    def places(self, step: int) -> list[int]:
        """Return the place of each window of a step."""
        return self._visited(step * self.batch_size, (step + 1) * self.batch_size)

    def _visited(self, start: int, stop: int) -> list[int]:
        """Return the place of the window of each visit, counted from the first epoch on."""
        places: list[int] = []
        while start < stop:
            epoch = self._epoch(start)
            order, _ = _epoch_order(self.seed, epoch, tuple(self.sources.values()))
            first = self._visits_before(epoch)
            places += order[start - first : stop - first].tolist()
            start = min(stop, first + len(order))
        return places

    def _epoch(self, visit: int) -> int:
        epoch = int(visit // self.per_epoch)
        while self._visits_before(epoch + 1) <= visit:  # fractions of windows are rounded down
            epoch += 1
        return epoch

    def _visits_before(self, epoch: int) -> int:
        return sum(source.visits_before(epoch) for source in self.sources.values())

    def seen(self, steps: int) -> dict[str, int]:
        """Return how many tokens of each corpus the first ``steps`` steps read."""
        visits = steps * self.batch_size
        epoch = self._epoch(visits)
        sources = self.sources
        _, kinds = _epoch_order(self.seed, epoch, tuple(sources.values()))
        counts = np.bincount(kinds[: visits - self._visits_before(epoch)], minlength=len(sources))
        tokens = {}
        for (name, source), count in zip(sources.items(), counts.tolist(), strict=True):
            total = source.visits_before(epoch) + count
            if self.packed:
                tokens[name] = total * self.context_length
            else:
                begin, end = self._ranges[name]
                passes = total // source.windows
                rest = source.visits(passes * source.windows, total)
                tokens[name] = passes * (end - begin) + int(self._lengths(rest).sum())
        return tokens

    def _lengths(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the tokens that windows predict, (windows,)."""
        documents = np.searchsorted(self._window_ends, numbers, side="right")
        after = self._window_ends[documents] - numbers  # windows of the document from this one on
        lengths = np.diff(self._document_ends, prepend=0)[documents]
        last = lengths - (-(-lengths // self.context_length) - 1) * self.context_length
        return np.where(after > 1, self.context_length, last)


@lru_cache(maxsize=2)
def _epoch_order(
    seed: int, epoch: int, sources: tuple[Source, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Return the place of each window of an epoch and its source, (windows,) each.

    Windows of a source keep their order; only the sources alternate at random.
    """
    visits = [
        each.visits(each.visits_before(epoch), each.visits_before(epoch + 1)) for each in sources
    ]
    kinds = np.repeat(np.arange(len(sources), dtype=np.uint16), list(map(len, visits)))
    if len(sources) == 1:
        return visits[0], kinds
    kinds = np.random.default_rng([seed, epoch, 0, 1]).permutation(kinds)
    places = np.empty(len(kinds), np.int64)
    for number, each in enumerate(visits):
        places[kinds == number] = each
    return places, kinds


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
