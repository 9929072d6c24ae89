"""Sliding windows: predict each token with nearly a full context before it.

In adjacent windows the first tokens have little context, so the loss is higher than a reader of
the whole text would have. Sliding windows overlap, and only the new tokens of each are scored::

    T = 4, stride = 2       |a b c d|          scored: a b c d
                                |c d e f|              e f
                                    |e f g h|          g h

The last window reaches back to be full, as in lm-evaluation-harness. T is the context length.
"""

from collections.abc import Iterator
from itertools import islice, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import NO_TARGET, Rows, TokenBatch


def sliding_windows(
    tokens: TokenSplit, context_length: int, stride: int, batch_size: int
) -> Iterator[TokenBatch[npt.NDArray[Any]]]:
    """Yield batches in which each token of a split is a target exactly once.

    Windows stay within a document if the split was tokenized with padded windows.

    Args:
        tokens: the split.
        context_length: T.
        stride: tokens scored per window, except the first window of a text; 1 to T.
        batch_size: windows per batch.
    """
    rows = (
        _window(tokens, first, begin, end, context_length)
        for first, last in _texts(tokens)
        for begin, end in _scored_ranges(last - first, context_length, stride)
    )
    while batch := list(islice(rows, batch_size)):
        inputs, targets = (np.stack(each) for each in zip(*batch, strict=True))
        mask = inputs != NO_TARGET
        padded: Rows = np.where(mask, inputs, tokens.index.pad)
        yield TokenBatch(padded, targets, mask)


def _texts(tokens: TokenSplit) -> Iterator[tuple[int, int]]:
    """Start and end of each document, or of the whole split if its windows are packed."""
    if tokens.index.windows == "packed":
        yield 0, len(tokens)
        return
    yield from pairwise([0, *map(int, tokens.document_ends)])


def _scored_ranges(length: int, context_length: int, stride: int) -> Iterator[tuple[int, int]]:
    """Start and end of the tokens that each window of a text scores."""
    begin, end = 0, min(context_length, length)
    while begin < length:
        yield begin, end
        begin, end = end, min(end + stride, length)


def _window(
    tokens: TokenSplit, first: int, begin: int, end: int, context_length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Inputs and targets of one window, (T,) each, padded on the right with ``NO_TARGET``."""
    start = max(0, end - context_length)
    if start:
        window = tokens.read(first + start - 1, first + end)
    else:  # a text follows the end of another
        window = np.concatenate([[tokens.index.eos], tokens.read(first, first + end)])
    inputs, targets = (np.full(context_length, NO_TARGET, np.int64) for _ in range(2))
    inputs[: end - start] = window[:-1]
    targets[begin - start : end - start] = window[1 + begin - start :]
    return inputs, targets
