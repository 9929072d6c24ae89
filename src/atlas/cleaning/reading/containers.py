"""Open raw files: unpack gzip, bzip2, xz and zstd, and read the members of zip and tar archives.

Compression is recognized by content, also in layers. Nothing is unpacked to disk, so no path in an
archive can lead anywhere. Packed files are read to their end once before use: a damaged file is
rejected before its first document is used, and a file that unpacks to far more than its size is
never held in memory.
"""

import bz2
import contextlib
import errno
import functools
import gzip
import io
import lzma
import struct
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from atlas.cleaning.reading.pieces import Piece
from atlas.corpora.formats import HEAD, compression_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_RATIO = 200  # unpacked to packed bytes; text has about 5, repetitive text 50
ALWAYS_ALLOWED = 16 << 20  # unpacked bytes, whatever the ratio
MAX_IN_MEMORY = 64 << 20  # bytes of a member that is read at random
MAX_LAYERS = 3  # of compression
MAGIC_BYTES = 16
CHUNK = 1 << 20
DAMAGE_ERRORS = (  # raised by the unpackers for damaged data, found by fuzzing
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, zstd.ZstdError, struct.error),
    *(tarfile.TarError, EOFError, ValueError, LookupError, OverflowError, OSError),
)
UNPACKERS: dict[str, Callable[[Any], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    # The window of `zstd --long=31`, which large public dumps use.
    "zstd": lambda file: zstd.ZstdFile(
        file, options={zstd.DecompressionParameter.window_log_max: 31}
    ),
}


class BrokenFileError(Exception):
    """The file can't be read to its end; ``reason`` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True)
class Content:
    """The start of an unpacked file."""

    head: bytes  # at most HEAD bytes
    layers: list[str]  # of compression, outermost first


@contextmanager
def open_stream(piece: Piece) -> Iterator[BinaryIO]:
    """Open a file or a member of an archive and unpack it; the stream is seekable.

    Call ``inspect`` first; errors of the unpackers are not handled here.
    """
    if piece.content is not None:
        yield io.BytesIO(piece.content)
    else:
        with _open_layers(piece, []) as stream:
            yield stream


@contextmanager
def open_seekable(piece: Piece) -> Iterator[BinaryIO]:
    """Open a piece for reading at random: the file itself, or what is packed in memory."""
    with open_stream(piece) as stream:
        if is_plain(stream) or piece.content is not None:
            yield stream
        else:
            yield io.BytesIO(read_whole(stream, MAX_IN_MEMORY))


def is_plain(stream: BinaryIO) -> bool:
    """True for a file on disk that is not packed."""
    return isinstance(getattr(stream, "raw", None), io.FileIO)


def read_whole(stream: BinaryIO, limit: int) -> bytes:
    """Read a stream to its end; raise if it has more than ``limit`` bytes."""
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise BrokenFileError("too_large", f"more than {limit:,} bytes, too many to hold in memory")
    return data


def inspect(piece: Piece, to_end: bool = True) -> Content:
    """Return the start of a file; of a packed one, raise if it is damaged or unpacks to too much.

    A packed file is read ``to_end``, because only its end shows that it is whole.
    """
    layers: list[str] = []
    with (
        as_broken_file(lambda: f"broken_{layers[0] if layers else 'zip'}"),
        _open_layers(piece, layers) as stream,
    ):
        head = stream.read(HEAD)
        if to_end and (layers or piece.member or piece.opener):
            _drain([io.BytesIO(head), stream], piece)
        return Content(head, layers)


def _drain(streams: Iterable[IO[bytes]], piece: Piece) -> None:
    """Read streams to their end; raise if they have too many bytes for the size of the piece."""
    packed = packed_bytes(piece)
    allowed = max(ALWAYS_ALLOWED, MAX_RATIO * packed)
    unpacked = 0
    for stream in streams:
        while chunk := stream.read(CHUNK):
            unpacked += len(chunk)
            if unpacked > allowed:
                detail = f"its {packed:,} bytes unpack to more than {allowed:,}"
                raise BrokenFileError("swells", detail)


def packed_bytes(piece: Piece) -> int:
    """Return the bytes that a piece takes on disk, an upper limit for a member."""
    if piece.packed_bytes:
        return piece.packed_bytes
    if piece.member:
        return _archive(piece.path).getinfo(piece.member).compress_size
    return piece.path.stat().st_size


@contextmanager
def _open_layers(piece: Piece, layers: list[str]) -> Iterator[BinaryIO]:
    """Open a piece unpacked; add its compressions to ``layers``."""
    with contextlib.closing(_open_packed(piece)) as stream:
        while len(layers) < MAX_LAYERS:
            compression = compression_of(stream.read(MAGIC_BYTES))
            stream.seek(0)
            if compression is None:
                break
            layers.append(compression)
            stream = UNPACKERS[compression](stream)
        yield stream


def _open_packed(piece: Piece) -> BinaryIO:
    if piece.opener:
        return piece.opener()
    if piece.member is not None:
        return cast(BinaryIO, _archive(piece.path).open(piece.member))
    return piece.path.open("rb")


@contextmanager
def as_broken_file(reason: str | Callable[[], str]) -> Iterator[None]:
    """Turn errors of the unpackers into a BrokenFileError."""
    code = reason if callable(reason) else lambda: reason
    try:
        yield
    except RuntimeError as error:  # zipfile raises it for encryption and unknown methods
        detail = "it needs a password" if "password" in str(error) else str(error)
        raise BrokenFileError("zip_encrypted_or_unknown", detail) from error
    except DAMAGE_ERRORS as error:
        number = getattr(error, "errno", None)
        if number not in (None, errno.EINVAL):  # EINVAL: an offset before the start
            raise
        raise BrokenFileError(code(), str(error) or type(error).__name__) from error


@dataclass(frozen=True)
class Member:
    """A file in an archive; ``refusal`` says why it is not one."""

    name: str
    size: int = 0
    open: Callable[[], BinaryIO] | None = None
    refusal: str = ""


def zip_members(archive: zipfile.ZipFile, packed: int) -> list[Member]:
    """List the files in a zip archive, except hidden ones and macOS metadata, sorted by name."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > max(ALWAYS_ALLOWED, MAX_RATIO * packed):
        raise BrokenFileError("swells", f"its files unpack to {unpacked:,} bytes")
    visible = [entry for entry in entries if _is_visible(entry.filename)]
    for name, count in Counter(entry.filename for entry in visible).items():
        if count > 1:
            raise BrokenFileError("repeated_names", f"{count} files in it are called {name}")
    return [
        Member(
            entry.filename,
            entry.file_size,
            cast(Callable[[], BinaryIO], functools.partial(archive.open, entry)),
        )
        for entry in sorted(visible, key=lambda entry: entry.filename)
    ]


def archive_members(path: Path) -> list[Member]:
    """List the files in a zip archive on disk."""
    with as_broken_file("broken_zip"):
        return zip_members(_archive(path), path.stat().st_size)


def tar_members(piece: Piece) -> Iterator[Member]:
    """Yield the members of a tar archive in order, each to be read before the next."""
    seen: Counter[str] = Counter()
    with open_stream(piece) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for number, entry in enumerate(archive):
            if entry.isdir() or not _is_visible(entry.name):
                continue
            name = entry.name.encode(errors="surrogateescape").decode(errors="replace")
            seen[name] += 1
            name = f"{name}@{seen[name]}" if seen[name] > 1 else name
            file = archive.extractfile(entry) if entry.isreg() else None
            if file is None:
                yield Member(name, refusal="a link or a device in an archive")
            elif entry.size <= MAX_IN_MEMORY:
                yield Member(name, entry.size, functools.partial(io.BytesIO, file.read()))
            else:
                reopen = functools.partial(_tar_member, piece, number)
                yield Member(
                    name, entry.size, functools.partial(_rewindable, reopen, [cast(BinaryIO, file)])
                )


@contextmanager
def _tar_member(piece: Piece, number: int) -> Iterator[BinaryIO]:
    """Open a tar archive again and go to a member."""
    with open_stream(piece) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in (entry for index, entry in enumerate(archive) if index == number):
            yield cast(BinaryIO, archive.extractfile(entry))
            return


def check_tar(piece: Piece) -> None:
    """Read all members of a tar archive; raise if it is damaged or unpacks to too much."""
    with (
        as_broken_file("broken_tar"),
        open_stream(piece) as stream,
        tarfile.open(fileobj=stream, mode="r|") as archive,
    ):
        files = (archive.extractfile(entry) for entry in archive if entry.isreg())
        _drain(filter(None, files), piece)
        _drain([stream], piece)
        if stream.tell() % tarfile.BLOCKSIZE:
            raise BrokenFileError("broken_tar", "it is cut")


def _rewindable(
    reopen: Callable[[], contextlib.AbstractContextManager[BinaryIO]], opened: list[BinaryIO]
) -> BinaryIO:
    """Wrap a member that is too large for memory; ``opened`` holds it until its first use."""
    first = opened.pop() if opened else None
    return cast(BinaryIO, io.BufferedReader(_Rewindable(reopen, first), CHUNK))


class _Rewindable(io.RawIOBase):
    """A stream that is opened again to go back."""

    def __init__(
        self,
        reopen: Callable[[], contextlib.AbstractContextManager[BinaryIO]],
        stream: BinaryIO | None,
    ) -> None:
        self._reopen = reopen
        self._stream = stream
        self._position = 0
        self._context = contextlib.ExitStack()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._stream is None:
            self._stream = self._context.enter_context(self._reopen())
            self._position = 0
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of a stream is unknown")
        target = offset + (self._position if whence == io.SEEK_CUR else 0)
        if target < self._position:
            self._context.close()
            self._stream, self._position = None, 0
        while self._position < target:
            if not self.readinto(memoryview(bytearray(min(CHUNK, target - self._position)))):
                break
        return self._position

    def close(self) -> None:
        self._context.close()
        super().close()


def _archive(path: Path) -> zipfile.ZipFile:
    """Open an archive and keep it open: reading its directory for every member is slow."""
    state = path.stat()
    return _opened_archive(path, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _opened_archive(path: Path, _size: int, _mtime: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _is_visible(name: str) -> bool:
    hidden = (part.startswith(".") and part not in (".", "..") for part in name.split("/"))
    return not name.startswith("__MACOSX/") and not any(hidden)
