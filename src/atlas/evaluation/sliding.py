"""Sliding windows: each token is predicted with nearly a full context before it.

Side by side, windows give the first token of each one little to go by, so a text looks harder than
it is to a reader who has all of what came before. Windows that move on by fewer tokens than they
hold overlap, and only what is new in one is counted::

    T = 4, stride = 2       |a b c d|          counted: a b c d
                                |c d e f|               e f
                                    |e f g h|           g h

The last window reaches back to be full, as in lm-evaluation-harness.
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
    """Batches in which each token of a split is a target exactly once.

    Windows stay within documents where tokenize kept them apart.

    Args:
        tokens: of the split.
        context_length: T.
        stride: tokens that are counted of each window but the first of a text, 1 to T.
        batch_size: windows at once.
    """
    rows = (
        _row(tokens, first, begin, end, context_length)
        for first, last in _texts(tokens)
        for begin, end in _counted(last - first, context_length, stride)
    )
    while some := list(islice(rows, batch_size)):
        inputs, targets = (np.stack(each) for each in zip(*some, strict=True))
        known = inputs != NO_TARGET
        filled: Rows = np.where(known, inputs, tokens.index.pad)
        yield TokenBatch(filled, targets, known)


def _texts(tokens: TokenSplit) -> Iterator[tuple[int, int]]:
    """Where each text begins and ends: a document, or the whole split."""
    if tokens.index.windows == "packed":
        yield 0, len(tokens)
        return
    yield from pairwise([0, *map(int, tokens.document_ends)])


def _counted(length: int, context_length: int, stride: int) -> Iterator[tuple[int, int]]:
    """Which tokens of a text each window counts."""
    begin, end = 0, min(context_length, length)
    while begin < length:
        yield begin, end
        begin, end = end, min(end + stride, length)


def _row(
    tokens: TokenSplit, first: int, begin: int, end: int, context_length: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Inputs and targets of one window, (T,) each, filled up on the right."""
    start = max(0, end - context_length)
    if start:
        window = tokens.read(first + start - 1, first + end)
    else:  # a text begins after the end of another
        window = np.concatenate([[tokens.index.eos], tokens.read(first, first + end)])
    inputs, targets = (np.full(context_length, NO_TARGET, np.int64) for _ in range(2))
    inputs[: end - start] = window[:-1]
    targets[begin - start : end - start] = window[1 + begin - start :]
    return inputs, targets
