"""Raw files as streams of bytes: plain, gzipped, or members of a zip archive.

Nothing is ever unpacked to disk, so no path in an archive can lead anywhere. What is packed is
read through once before it is used: a broken file is known to be broken before the first
document is taken from it, and a file that swells beyond all measure is never held.

Streams of bytes cut into lines or blocks of bounded size, whole or a range of them.

A range of a file holds what *starts* in it, so that ranges can be read apart, on any machine,
and together give the file once. Nothing here holds more than one line or block.
"""

import errno
import functools
import gzip
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from atlas.corpora.local_files import PACKED

LARGEST_RATIO = 200  # unpacked to packed; text packs to a fifth, repeated text to a fiftieth
ALWAYS_ALLOWED = 64 << 20  # bytes unpacked, whatever the ratio
CHUNK = 1 << 20
DAMAGE = (  # what the unpackers say of bytes that they do not understand, found by fuzzing
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, LookupError),
)


class BrokenFileError(Exception):
    """The file can't be read to its end; ``reason`` is a short name for why."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Member:
    """A file in a zip archive, and the bytes that it says it unpacks to."""

    name: str
    bytes: int


@contextmanager
def open_stream(path: Path, member: str | None) -> Iterator[BinaryIO]:
    """The bytes of a file, or of a member of a zip archive; gzip is unpacked.

    What is packed has passed ``check_packed``: errors of packing are not expected here.
    """
    if member is None:
        with path.open("rb") as file:
            yield _unpacked(file, path.name)
    else:
        with _archive(path).open(member) as packed:
            yield _unpacked(cast(BinaryIO, packed), member)


def check_packed(path: Path, member: str | None) -> None:
    """Reads what is packed to its end.

    Raises:
        BrokenFileError: it is damaged, encrypted, of an unknown kind, or swells beyond
            LARGEST_RATIO.
    """
    with _damage_told("broken_gzip" if member is None else "broken_zip"):
        packed = path.stat().st_size
        if member is not None:
            packed = _archive(path).getinfo(member).compress_size
        allowed = max(ALWAYS_ALLOWED, LARGEST_RATIO * packed)
        unpacked = 0
        with open_stream(path, member) as stream:
            while chunk := stream.read(CHUNK):
                unpacked += len(chunk)
                if unpacked > allowed:
                    raise BrokenFileError(
                        "swells", f"its {packed:,} bytes unpack to more than {allowed:,}"
                    )


def members(path: Path) -> list[Member]:
    """The files in a zip archive, by name; hidden ones and macOS's own left out.

    Raises:
        BrokenFileError: it is no zip archive, two files in it have one name, or all of it
            together swells beyond measure.
    """
    with _damage_told("broken_zip"):
        entries = [entry for entry in _archive(path).infolist() if not entry.is_dir()]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max(ALWAYS_ALLOWED, LARGEST_RATIO * path.stat().st_size):
        raise BrokenFileError("swells", f"it says that it unpacks to {unpacked:,} bytes")
    found = [entry for entry in entries if not _hidden(entry.filename)]
    for name, times in Counter(entry.filename for entry in found).items():
        if times > 1:
            raise BrokenFileError("repeated_names", f"{times} files in it are called {name}")
    return sorted(
        (Member(entry.filename, entry.file_size) for entry in found), key=lambda each: each.name
    )


@contextmanager
def _damage_told(reason: str) -> Iterator[None]:
    """Turns what the unpackers say of damage into a BrokenFileError."""
    try:
        yield
    except RuntimeError as error:  # zipfile's word for these two
        raise BrokenFileError("zip_encrypted_or_unknown", str(error)) from error
    except DAMAGE as error:
        raise BrokenFileError(reason, str(error)) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a place before the file's beginning
            raise
        raise BrokenFileError(reason, str(error)) from error


def _archive(path: Path) -> zipfile.ZipFile:
    """An archive that stays open: to read its directory for each of many members takes long."""
    state = path.stat()
    return _opened_archive(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _opened_archive(path: Path, _size: int, _changed: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _hidden(name: str) -> bool:
    parts = name.split("/")
    return parts[0] == "__MACOSX" or any(part.startswith(".") for part in parts if part != "..")


def _unpacked(stream: BinaryIO, name: str) -> BinaryIO:
    if name.lower().endswith(PACKED):
        return cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    return stream


LONGEST_LINE = 32 << 20  # bytes of a record; longer ones are left out
LONGEST_BLOCK = 8 << 20  # bytes of a text that become one document
LOOK_BACK = 1 << 16  # bytes before an end in which a better place to cut is looked for


def read_lines(stream: BinaryIO, start: int, stop: int | None) -> Iterator[bytes | None]:
    """The lines that start at ``start`` or later and before ``stop``; None for one too long.

    A ``start`` other than 0 is moved on to the next start of a line.
    """
    position = start
    if start:
        stream.seek(start - 1)
        position += _skip_line(stream) - 1
    while stop is None or position < stop:
        line = stream.readline(LONGEST_LINE + 1)
        if not line:
            return
        position += len(line)
        if len(line) > LONGEST_LINE:
            position += 0 if line.endswith(b"\n") else _skip_line(stream)
            yield None
        else:
            yield line


def count_lines(stream: BinaryIO, start: int, stop: int) -> int:
    """How many lines end within a range of bytes."""
    stream.seek(start)
    found, left = 0, stop - start
    while left > 0 and (chunk := stream.read(min(CHUNK, left))):
        found += chunk.count(b"\n")
        left -= len(chunk)
    return found


def read_blocks(
    stream: BinaryIO, start: int, stop: int | None, width: int, separator: bytes = b""
) -> Iterator[tuple[int, bytes]]:
    """The text of a range in blocks, each with the place of its first byte.

    A block ends after a separator if it holds one, else after a line, a blank or a character.

    Args:
        stream: the bytes; it can seek unless the range is all of it.
        start: the range begins at the cut that is nearest before it.
        stop: the same for its end; None for the end of the stream.
        width: bytes of the encoding's unit: 1, 2 or 4.
        separator: what divides documents, if anything does.
    """
    position = _boundary(stream, start, width, separator) if start else 0
    end = None if stop is None else _boundary(stream, stop, width, separator)
    if position:
        stream.seek(position)
    elif end is not None:
        stream.seek(0)
    waiting = b""
    left = end - position if end is not None else None
    while True:
        wanted = LONGEST_BLOCK - len(waiting)
        if left is not None:
            wanted = min(wanted, left)
            left -= wanted
        new = _read(stream, wanted)
        block = waiting + new
        last = left == 0 or len(new) < wanted
        cut = len(block) if last else _cut(block, width, separator)
        if cut:
            yield position, block[:cut]
        if last:
            return
        waiting, position = block[cut:], position + cut


def _boundary(stream: BinaryIO, place: int, width: int, separator: bytes) -> int:
    """The cut nearest before a place in a file: the same for the ranges on both its sides."""
    begin = max(0, place - (LONGEST_BLOCK if separator else LOOK_BACK))
    stream.seek(begin)
    window = _read(stream, place - begin + 1)
    if len(window) <= place - begin:
        return begin + len(window)  # the end of the file
    return begin + _cut(window[:-1], width, separator)


def _cut(block: bytes, width: int, separator: bytes) -> int:
    """Where to end a block: after its last separator, line end, blank or character."""
    tail = max(0, len(block) - LOOK_BACK)
    if width > 1:
        whole = len(block) - len(block) % width
        for unit in range(whole - width, tail, -width):
            if block[unit : unit + width].strip(b"\x00") == b"\n":
                return unit + width
        return whole
    if separator and (found := block.rfind(separator)) >= 0:
        return found + len(separator)
    for mark in (b"\n", b" "):
        if (found := block.rfind(mark, tail)) >= 0:
            return found + 1
    cut = len(block)
    while cut > tail and len(block) - cut < 3 and block[cut - 1] & 0xC0 == 0x80:
        cut -= 1  # into the middle of a character of UTF-8 ...
    if cut > tail and block[cut - 1] >= 0xC0:
        return cut - 1  # ... back to before its first byte
    return len(block)


def _read(stream: BinaryIO, size: int) -> bytes:
    """As many bytes as there are: one read of a packed stream may give fewer."""
    chunks = []
    while size > 0 and (chunk := stream.read(size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _skip_line(stream: BinaryIO) -> int:
    skipped = 0
    while line := stream.readline(CHUNK):
        skipped += len(line)
        if line.endswith(b"\n"):
            break
    return skipped
