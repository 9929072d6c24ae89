"""Token shards: ids on disk, memory mapped, with a header that says what they are.

A shard holds whole documents. It is little-endian throughout::

    magic      8 bytes   b"ATLASTOK"
    version    uint32    2
    width      uint32    bytes an id: 2 up to 65,536 pieces, else 4
    tokens     uint64    ids in this shard
    documents  uint64    documents that they encode
    tokenizer  32 bytes  SHA-256 of the tokenizer's model file
    checksum   uint32    CRC-32 of ids, ends and header, this field as 0
    (padding)  12 bytes
    ids        tokens * width bytes
    (padding)  to a multiple of 8
    ends       documents * uint64: where each document ends in the ids
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atlas.errors import AtlasError

MAGIC, VERSION = b"ATLASTOK", 2
HEADER = struct.Struct("<8sIIQQ32sI12x")
ALIGNMENT = END_WIDTH = 8
CHECKSUM = slice(64, 68)  # its place in the header
CHUNK = 1 << 24  # bytes checked at once

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Ends = npt.NDArray[np.uint64]


def width_of(vocab_size: int) -> int:
    """Bytes that an id of such a vocabulary takes on disk."""
    return 2 if vocab_size <= 1 << 16 else 4


def shard_path(folder: Path, split: str, number: int) -> Path:
    """The file of a split's n-th shard."""
    return folder / f"{split}-{number:05d}.bin"


class ShardWriter:
    """Writes a shard as its ids come.

    Attributes:
        tokens: ids so far.
        documents: that have ended so far.
    """

    def __init__(self, path: Path, vocab_size: int, tokenizer_sha256: str) -> None:
        self.tokens = self.documents = 0
        self._width = width_of(vocab_size)
        self._tokenizer = bytes.fromhex(tokenizer_sha256)
        self._ends: list[Ends] = []
        self._checksum = 0
        self._file = path.open("wb")
        self._file.write(bytes(HEADER.size))

    def write(self, ids: npt.ArrayLike, ends: npt.ArrayLike) -> None:
        """Appends ids, and where among them documents end."""
        array = np.asarray(ids, f"<u{self._width}")
        document_ends = np.asarray(ends, "<u8") + np.uint64(self.tokens)
        self._ends.append(document_ends)
        self.tokens += len(array)
        self.documents += len(document_ends)
        self._append(array.tobytes())

    def close(self) -> None:
        """Ends the shard."""
        self._append(bytes(-self.tokens * self._width % ALIGNMENT))
        for ends in self._ends:
            self._append(ends.tobytes())
        header = [MAGIC, VERSION, self._width, self.tokens, self.documents, self._tokenizer]
        checksum = zlib.crc32(HEADER.pack(*header, 0), self._checksum)
        self._file.seek(0)
        self._file.write(HEADER.pack(*header, checksum))
        self._file.close()

    def _append(self, data: bytes) -> None:
        self._file.write(data)
        self._checksum = zlib.crc32(data, self._checksum)


@dataclass(frozen=True)
class Shard:
    """A shard in memory maps, read only.

    Attributes:
        ids: of all its documents, (tokens,).
        ends: where each of them ends, (documents,).
        checksum: of all of it.
    """

    ids: Ids
    ends: Ends
    checksum: int


def open_shard(path: Path, tokens: int, tokenizer_sha256: str) -> Shard:
    """Maps a shard into memory, after a check of all that can be wrong with it.

    Args:
        path: the file.
        tokens: ids that it must hold.
        tokenizer_sha256: of the tokenizer that must have made it.

    Raises:
        AtlasError: it is missing, cut short, damaged, or of another tokenizer or version.
    """
    again = "`dvc repro -f tokenize` writes it again"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            raw = file.read(HEADER.size)
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such token shard; {again}") from None
    if len(raw) < HEADER.size or raw[: len(MAGIC)] != MAGIC:
        raise AtlasError(f"{path}: not a token shard; {again}")
    _, version, width, held, documents, tokenizer, checksum = HEADER.unpack(raw)
    if version != VERSION or width not in (2, 4):
        raise AtlasError(
            f"{path}: version {version} with {width} bytes an id, this program reads version "
            f"{VERSION} with 2 or 4; {again}"
        )
    if tokenizer.hex() != tokenizer_sha256:
        raise AtlasError(f"{path}: made by another tokenizer than models/tokenizer; {again}")
    first_end = HEADER.size + -(-held * width // ALIGNMENT) * ALIGNMENT
    expected = first_end + documents * END_WIDTH
    if held != tokens or size != expected:
        raise AtlasError(
            f"{path}: {size} bytes with {held} tokens, expected {expected} with {tokens}: cut "
            f"short or damaged; {again}"
        )
    if _checksum(path) != checksum:
        raise AtlasError(f"{path}: its checksum differs, so it is damaged; {again}")
    data = np.memmap(path, np.uint8, "r")  # one map, as each holds a file open
    ids = data[HEADER.size : HEADER.size + held * width].view(f"<u{width}")
    return Shard(ids, data[first_end:].view("<u8"), checksum)


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        header = bytearray(file.read(HEADER.size))
        header[CHECKSUM] = bytes(4)
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return zlib.crc32(header, checksum)
