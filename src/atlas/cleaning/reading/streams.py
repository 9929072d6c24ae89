"""Raw files as streams of bytes: plain, gzipped, or members of a zip archive.

Nothing is ever unpacked to disk, so no path in an archive can lead anywhere. What is packed is
read through once before it is used: a broken file is known to be broken before the first
document is taken from it, and a file that swells beyond all measure is never held.
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

from atlas.corpora.formats import PACKED

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
