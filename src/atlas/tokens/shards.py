"""Token shards: ids on disk, memory mapped, with a header that says what they are.

A shard is 64 bytes of header, little-endian, and then the ids, 2 or 4 bytes each::

    magic      8 bytes   b"ATLASTOK"
    version    uint32    1
    width      uint32    bytes an id: 2 up to 65,536 pieces, else 4
    count      uint64    ids in this shard
    tokenizer  32 bytes  SHA-256 of the tokenizer's model file
    checksum   uint32    CRC-32 of the ids
    (padding)  4 bytes
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError

MAGIC, VERSION = b"ATLASTOK", 1
HEADER = struct.Struct("<8sIIQ32sI4x")
CHUNK = 1 << 22  # ids checked at once

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def width_of(vocab_size: int) -> int:
    """Bytes that an id of such a vocabulary takes on disk."""
    return 2 if vocab_size <= 1 << 16 else 4


def shard_path(folder: Path, split: str, number: int) -> Path:
    """The file of a split's n-th shard."""
    return folder / f"{split}-{number:05d}.bin"


@dataclass
class ShardWriter:
    """Writes a split's ids into shards of at most ``shard_tokens`` ids.

    Attributes:
        counts: ids of each shard so far.
    """

    folder: Path
    split: str
    vocab_size: int
    tokenizer_sha256: str
    shard_tokens: int

    def __post_init__(self) -> None:
        self.counts: list[int] = []
        self._checksum = 0
        self._file = self._open_next()

    def write(self, ids: list[int]) -> None:
        """Appends the ids of a document; it may go on in the next shard."""
        array = np.asarray(ids, dtype=f"<u{width_of(self.vocab_size)}")
        while len(array):
            room = self.shard_tokens - self.counts[-1]
            if not room:
                self._close()
                self._file = self._open_next()
                room = self.shard_tokens
            payload = array[:room].tobytes()
            self._file.write(payload)
            self._checksum = zlib.crc32(payload, self._checksum)
            self.counts[-1] += min(room, len(array))
            array = array[room:]

    def close(self) -> None:
        """Ends the last shard."""
        self._close()

    def _open_next(self) -> BinaryIO:
        self.counts.append(0)
        self._checksum = 0
        file = shard_path(self.folder, self.split, len(self.counts) - 1).open("wb")
        file.write(bytes(HEADER.size))
        return file

    def _close(self) -> None:
        header = HEADER.pack(
            MAGIC,
            VERSION,
            width_of(self.vocab_size),
            self.counts[-1],
            bytes.fromhex(self.tokenizer_sha256),
            self._checksum,
        )
        self._file.seek(0)
        self._file.write(header)
        self._file.close()


def open_shard(path: Path, count: int, tokenizer_sha256: str) -> Ids:
    """Maps a shard into memory, after a check of all that can be wrong with it.

    Args:
        path: the file.
        count: ids that it must hold.
        tokenizer_sha256: of the tokenizer that must have made it.

    Returns:
        Its ids, (count,), read only.

    Raises:
        AtlasError: it is missing, cut short, damaged, or of another tokenizer or version.
    """
    again = "`dvc repro -f tokenize` writes it again"
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER.size)
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such token shard; {again}") from None
    if len(raw) < HEADER.size or raw[: len(MAGIC)] != MAGIC:
        raise AtlasError(f"{path}: not a token shard; {again}")
    _, version, width, held, tokenizer, checksum = HEADER.unpack(raw)
    if version != VERSION or width not in (2, 4):
        raise AtlasError(f"{path}: version {version}, this program reads {VERSION}; {again}")
    if tokenizer.hex() != tokenizer_sha256:
        raise AtlasError(f"{path}: made by another tokenizer than models/tokenizer; {again}")
    expected = HEADER.size + width * count
    if held != count or path.stat().st_size != expected:
        raise AtlasError(
            f"{path}: {path.stat().st_size} bytes, expected {expected}: cut short; {again}"
        )
    ids: Ids = np.memmap(path, dtype=f"<u{width}", mode="r", offset=HEADER.size, shape=(count,))
    if _crc32(ids) != checksum:
        raise AtlasError(f"{path}: its checksum differs, so it is damaged; {again}")
    return ids


def _crc32(ids: Ids) -> int:
    checksum = 0
    for chunk in _chunks(ids):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _chunks(ids: Ids) -> Iterator[bytes]:
    for start in range(0, len(ids), CHUNK):
        yield ids[start : start + CHUNK].tobytes()
