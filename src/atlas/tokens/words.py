"""Encodes many texts at once: each distinct word a single time, then by looking it up.

The words are what ``borders`` cuts a text into. Arrow finds the distinct ones among them, NumPy
puts the ids of all words in a row; Python sees the distinct words, and no token of the text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress, repeat
from threading import Lock

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from atlas.errors import AtlasError
from atlas.tokens.borders import Borders

Ids = npt.NDArray[np.int32]
Places = npt.NDArray[np.int64]
BLOCK = 1 << 23  # bytes encoded at once; the arrays for them take some 20 times that
END = 0  # the number of the word that ends a text
LONGEST_WORD = 1 << 26  # bytes; sentencepiece takes some 60 times that
NEAR = 1 << 12  # bytes looked at first for a place to cut
MOST_WORDS = 1 << 19  # distinct words remembered, with at most
MOST_IDS = 1 << 22  # so many ids: some 150 MB


@dataclass(frozen=True)
class Block:
    """The ids of some texts, one after the other.

    Attributes:
        ids: of all of them, (N,).
        ends: where in ``ids`` each text ends. One that goes on in the next block has no end here.
    """

    ids: Ids
    ends: Places


class WordEncoder:
    """Encodes texts word by word, and remembers the words.

    Args:
        encode: gives the ids of each of some words.
        borders: where words may be cut.
        end: the id that may follow a text.
    """

    def __init__(
        self, encode: Callable[[list[bytes]], Sequence[Sequence[int]]], borders: Borders, end: int
    ) -> None:
        self._encode = encode
        self._borders = borders
        self._end = np.array([end], np.int32)
        self._one_at_a_time = Lock()  # threads may share the words
        self._known: dict[bytes, int] = {}  # words and their numbers, from 1 on
        self._ids: Ids = self._end  # of all words; the n-th has its own from _firsts[n] on
        self._firsts: Ids = np.zeros(1, np.int32)
        self._lengths: Ids = np.ones(1, np.int32)

    def blocks(self, texts: Iterable[bytes], *, with_end: bool) -> Iterator[Block]:
        """Encodes texts (UTF-8) of any number and length, a bounded block at a time."""
        waiting: list[tuple[bytes, bool]] = []
        size = 0
        for text in texts:
            for part, is_last in self._parts(text):
                if size + len(part) > BLOCK and waiting:
                    yield self._block(waiting, with_end)
                    waiting, size = [], 0
                waiting.append((part, is_last))
                size += len(part)
        if waiting:
            yield self._block(waiting, with_end)

    def _parts(self, text: bytes) -> Iterator[tuple[bytes, bool]]:
        """A text in parts of about a block, and whether each is its last."""
        start = 0
        while len(text) - start > BLOCK:
            stop = self._last_cut(text, start)
            yield text[start:stop], stop == len(text)
            start = stop
        if start < len(text) or not text:
            yield text[start:], True

    def _last_cut(self, text: bytes, start: int) -> int:
        """The last place to cut in the block from ``start``; beyond it if one word fills it."""
        stop = start + BLOCK
        for first in (max(stop - NEAR, start), start):
            places = np.flatnonzero(self._cuts(text[first:stop]))
            if len(places):
                return first + int(places[-1])
        while stop < len(text):
            if stop - start >= LONGEST_WORD:
                begin = text[start : start + 20].decode(errors="replace")
                raise AtlasError(
                    f"a text with {(stop - start) >> 20} MB and no place to cut it, from "
                    f"{begin!r} on, is too long to encode at once: break it into lines, or leave "
                    "its document out"
                )
            first, stop = stop - 1, stop + BLOCK
            places = np.flatnonzero(self._cuts(text[first:stop]))
            if len(places):
                return first + int(places[0])
        return len(text)

    def _cuts(self, text: bytes) -> npt.NDArray[np.bool_]:
        """Whether it is safe to cut before each byte of a text, (bytes,); not before the first."""
        codes = np.frombuffer(text, np.uint8)
        pairs = codes[:-1].astype(np.uint16)
        pairs <<= 8
        pairs |= codes[1:]
        cuts = np.zeros(len(codes), bool)
        np.take(self._borders, pairs, out=cuts[1:])
        return cuts

    def _block(self, parts: list[tuple[bytes, bool]], with_end: bool) -> Block:
        data = b"".join(part for part, _ in parts)
        part_ends = np.cumsum([len(part) for part, _ in parts])
        cuts = np.append(self._cuts(data), True)
        cuts[[0, *part_ends]] = True
        places = np.flatnonzero(cuts)
        is_last = np.array([last for _, last in parts])
        text_ends = np.searchsorted(places, part_ends[is_last])  # in words
        with self._one_at_a_time:
            return self._look_up(data, places, text_ends, with_end)

    def _look_up(self, data: bytes, places: Places, text_ends: Places, with_end: bool) -> Block:
        words = self._numbers(data, places)
        if with_end:
            words = np.insert(words, text_ends, END)
            text_ends += np.arange(1, len(text_ends) + 1)
        lengths = self._lengths.take(words)
        ends = np.zeros(len(words) + 1, np.int32)  # of the words, in ids
        np.cumsum(lengths, out=ends[1:])
        source = np.repeat(self._firsts.take(words) - ends[:-1], lengths)
        source += np.arange(len(source), dtype=np.int32)
        return Block(self._ids.take(source), ends[text_ends].astype(np.int64))

    def _numbers(self, data: bytes, places: Places) -> Ids:
        """The number of each word of a text that is cut at ``places``, its two ends included."""
        if len(self._known) > MOST_WORDS or len(self._ids) > MOST_IDS:
            self._forget()
        words = pa.LargeBinaryArray.from_buffers(
            pa.large_binary(), len(places) - 1, [None, pa.py_buffer(places), pa.py_buffer(data)]
        ).dictionary_encode()
        numbers = self._numbers_of_distinct(words.dictionary.to_pylist())
        _, places_in_dictionary = words.indices.buffers()  # to_numpy() would import pandas
        return numbers.take(np.frombuffer(places_in_dictionary, np.int32)[: len(words)])

    def _numbers_of_distinct(self, words: list[bytes]) -> Ids:
        numbers = np.fromiter(map(self._known.get, words, repeat(-1)), np.int32, len(words))
        is_new = numbers < 0
        new = list(compress(words, is_new))
        if new:
            first = self._remember(self._encode(new))
            numbers[is_new] = np.arange(first, first + len(new))
            self._known.update(zip(new, numbers[is_new].tolist(), strict=True))
        return numbers

    def _remember(self, ids: Sequence[Sequence[int]]) -> int:
        """Keeps the ids of new words; gives the number of the first."""
        number = len(self._firsts)
        lengths = np.fromiter(map(len, ids), np.int32, len(ids))
        firsts = np.cumsum(lengths, dtype=np.int32) - lengths + np.int32(len(self._ids))
        flat = np.fromiter(chain.from_iterable(ids), np.int32, int(lengths.sum()))
        self._ids = np.concatenate([self._ids, flat])
        self._lengths = np.concatenate([self._lengths, lengths])
        self._firsts = np.concatenate([self._firsts, firsts])
        return number

    def _forget(self) -> None:
        self._known = {}
        self._ids = self._end
        self._firsts, self._lengths = self._firsts[:1], self._lengths[:1]
