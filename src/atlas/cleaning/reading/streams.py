"""Byte streams cut into bounded pieces: lines and blocks.

A range of a file contains the lines or blocks that *start* in it, so ranges can be read
separately, on any machine, and together they contain every line once. Memory holds no more than
one line or block.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from atlas.cleaning.steps.gutenberg import book_starts

CHUNK = 1 << 20
MAX_LINE = 32 << 20  # bytes; longer lines are rejected
MAX_BLOCK = 8 << 20  # bytes of a text that become one document
LOOK_BACK = 1 << 16  # bytes before the end of a block searched for a good place to cut
NEAR_END = 1 << 20  # bytes before the end of a block searched first for a book
NAMES = (b"utenberg", b"UTENBERG")  # in the headers and footers of Project Gutenberg's books
NAME_MARGIN = 1 << 12  # bytes of a footer above its first mention of Project Gutenberg


def read_lines(stream: BinaryIO, start: int, stop: int | None) -> Iterator[bytes | None]:
    """Yield the lines that start in ``start:stop``, None for a line that is too long."""
    position = start
    if start:
        stream.seek(start - 1)
        position += _skip_line(stream) - 1
    while stop is None or position < stop:
        line = stream.readline(MAX_LINE + 1)
        if not line:
            return
        position += len(line)
        if len(line) > MAX_LINE:
            position += 0 if line.endswith(b"\n") else _skip_line(stream)
            yield None
        else:
            yield line


def count_lines(stream: BinaryIO, start: int, stop: int) -> int:
    """Count the lines that end within a range of bytes."""
    stream.seek(start)
    lines, remaining = 0, stop - start
    while remaining > 0 and (chunk := stream.read(min(CHUNK, remaining))):
        lines += chunk.count(b"\n")
        remaining -= len(chunk)
    return lines


def read_blocks(
    stream: BinaryIO, start: int, stop: int | None, marks: Sequence[re.Pattern[bytes]] = ()
) -> Iterator[tuple[int, bytes]]:
    """Yield a range of a text in blocks of at most MAX_BLOCK bytes, each with its byte offset.

    A block ends before its last book by Project Gutenberg. Otherwise it ends after the last match
    of the first mark that occurs in it, or else after a line, a space or a character, but not in a
    header or footer. Both ends of the range move back to the nearest cut. The stream must be
    seekable unless the range is all of it.
    """
    position = _boundary(stream, start, marks) if start else 0
    end = sys.maxsize if stop is None else _boundary(stream, stop, marks)
    if start or stop is not None:
        stream.seek(position)
    pending = b""
    while True:
        size = min(MAX_BLOCK, end - position) - len(pending)
        new = stream.read(size)
        block = pending + new
        last = len(new) < size or position + len(block) == end
        cut = len(block) if last else _cut(block, marks)
        if cut:
            yield position, block[:cut]
        if last:
            return
        pending, position = block[cut:], position + cut


def _boundary(stream: BinaryIO, offset: int, marks: Sequence[re.Pattern[bytes]]) -> int:
    """Find the nearest cut before an offset; the ranges on both sides find the same one."""
    start = max(0, offset - MAX_BLOCK)
    stream.seek(start)
    window = stream.read(offset - start + 1)
    if len(window) <= offset - start:
        return start + len(window)  # the end of the file
    return start + _cut(window[:-1], marks)


def _cut(block: bytes, marks: Sequence[re.Pattern[bytes]]) -> int:
    """Choose the end of a block: before a book, after a mark, line end, space or character."""
    for size in (NEAR_END, len(block)):
        if start := _last_book(block[-size:]):
            return max(0, len(block) - size) + start
    block = block[: _end_outside_footers(block)]
    tail = max(0, len(block) - LOOK_BACK)
    for pattern in marks:
        for start in (tail, 0):
            end = max((match.end() for match in pattern.finditer(block, start)), default=0)
            if end:
                return end
    for mark in (b"\n", b"\r", b" "):
        if (found := block.rfind(mark, tail)) >= 0:
            return found + 1
    cut = len(block)
    while cut > tail and len(block) - cut < 3 and block[cut - 1] & 0xC0 == 0x80:
        cut -= 1  # step back over UTF-8 continuation bytes ...
    if cut > tail and block[cut - 1] >= 0xC0:
        return cut - 1  # ... to before the lead byte
    return len(block)


def _last_book(block: bytes) -> int:
    """Find where the last book begins; not near the ends, which can cut a header or footer."""
    starts = (start for start in book_starts(block) if start < len(block) - NAME_MARGIN)
    return max((start for start in starts if start > LOOK_BACK), default=0)


def _end_outside_footers(block: bytes) -> int:
    """Find the last place without a mention of Project Gutenberg in LOOK_BACK bytes above it."""
    end = len(block)
    while (found := max(block.rfind(name, max(0, end - LOOK_BACK), end) for name in NAMES)) >= 0:
        end = found
    return end - NAME_MARGIN if NAME_MARGIN < end < len(block) else len(block)


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while line := stream.readline(CHUNK):
        skipped += len(line)
        if line.endswith(b"\n"):
            break
    return skipped
