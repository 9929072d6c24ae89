"""Raw files as byte streams (plain, gzipped, members of a zip archive), cut into bounded pieces.

Nothing is unpacked to disk, so no path in an archive can lead anywhere. Packed files are read to
their end once before use: a damaged file is rejected before its first document is used, and a file
that unpacks to far more than its size is never held in memory.

A range of a file contains the lines or blocks that *start* in it, so ranges can be read
separately, on any machine, and together they contain every line once. Memory holds no more than
one line or block.
"""

import errno
import functools
import gzip
import lzma
import re
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from atlas.corpora.local_files import GZIP_SUFFIX

MAX_RATIO = 200  # unpacked to packed bytes; text has about 5, repetitive text 50
ALWAYS_ALLOWED = 64 << 20  # unpacked bytes, whatever the ratio
CHUNK = 1 << 20
DAMAGE_ERRORS = (  # raised by the unpackers for damaged data, found by fuzzing
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, LookupError, OSError),
)


class BrokenFileError(Exception):
    """The file can't be read to its end; ``reason`` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@contextmanager
def open_stream(path: Path, member: str | None) -> Iterator[BinaryIO]:
    """Open a file or a member of a zip archive, and unpack gzip.

    Call ``check_packed`` first; errors of the unpackers are not handled here.
    """
    is_gzip = (member or path.name).lower().endswith(GZIP_SUFFIX)
    with path.open("rb") if member is None else _archive(path).open(member) as file:
        yield cast(BinaryIO, gzip.GzipFile(fileobj=file) if is_gzip else file)


def check_packed(path: Path, member: str | None) -> None:
    """Read a packed file to its end; raise if it is damaged or unpacks to too much."""
    with _as_broken_file("broken_gzip" if member is None else "broken_zip"):
        packed = path.stat().st_size
        if member is not None:
            packed = _archive(path).getinfo(member).compress_size
        allowed = max(ALWAYS_ALLOWED, MAX_RATIO * packed)
        unpacked = 0
        with open_stream(path, member) as stream:
            while chunk := stream.read(CHUNK):
                unpacked += len(chunk)
                if unpacked > allowed:
                    detail = f"its {packed:,} bytes unpack to more than {allowed:,}"
                    raise BrokenFileError("swells", detail)


def members(path: Path) -> list[tuple[str, int]]:
    """List files in a zip archive with declared sizes, except hidden ones and macOS metadata."""
    with _as_broken_file("broken_zip"):
        entries = [entry for entry in _archive(path).infolist() if not entry.is_dir()]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max(ALWAYS_ALLOWED, MAX_RATIO * path.stat().st_size):
        raise BrokenFileError("swells", f"its files unpack to {unpacked:,} bytes")
    sizes = [(each.filename, each.file_size) for each in entries if _is_visible(each.filename)]
    for name, count in Counter(name for name, _ in sizes).items():
        if count > 1:
            raise BrokenFileError("repeated_names", f"{count} files in it are called {name}")
    return sorted(sizes)


@contextmanager
def _as_broken_file(reason: str) -> Iterator[None]:
    """Turn errors of the unpackers into a BrokenFileError."""
    try:
        yield
    except RuntimeError as error:  # zipfile raises it for encryption and unknown methods
        raise BrokenFileError("zip_encrypted_or_unknown", str(error)) from error
    except DAMAGE_ERRORS as error:
        number = getattr(error, "errno", None)
        if number not in (None, errno.EINVAL):  # EINVAL: an offset before the start
            raise
        raise BrokenFileError(reason, str(error)) from error


def _archive(path: Path) -> zipfile.ZipFile:
    """Open an archive and keep it open: reading its directory for every member is slow."""
    state = path.stat()
    return _opened_archive(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _opened_archive(path: Path, _size: int, _mtime: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _is_visible(name: str) -> bool:
    hidden = (part.startswith(".") and part != ".." for part in name.split("/"))
    return not name.startswith("__MACOSX/") and not any(hidden)


MAX_LINE = 32 << 20  # bytes; longer lines are rejected
MAX_BLOCK = 8 << 20  # bytes of a text that become one document
LOOK_BACK = 1 << 16  # bytes before the end of a block searched for a good place to cut


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

    A block ends after the last match of the first mark that occurs in it, or else after a line, a
    space or a character. Both ends of the range move back to the nearest cut. The stream must be
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
    start = max(0, offset - (MAX_BLOCK if marks else LOOK_BACK))
    stream.seek(start)
    window = stream.read(offset - start + 1)
    if len(window) <= offset - start:
        return start + len(window)  # the end of the file
    return start + _cut(window[:-1], marks)


def _cut(block: bytes, marks: Sequence[re.Pattern[bytes]]) -> int:
    """Choose the end of a block: after its last mark, line end, space or character."""
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


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while line := stream.readline(CHUNK):
        skipped += len(line)
        if line.endswith(b"\n"):
            break
    return skipped
