"""Token shards: ids on disk, read through memory maps, with a header that identifies them.

``data/tokens`` holds the shards of each split and ``index.json``, which lists them. A shard holds
whole documents and is little-endian throughout::

    magic      8 bytes   b"ATLASTOK"
    version    uint32    3
    width      uint32    bytes per id: 2 for up to 65,536 pieces, else 4
    tokens     uint64    ids in this shard
    documents  uint64    documents they encode
    tokenizer  32 bytes  SHA-256 of the tokenizer's model file
    checksum   uint32    CRC-32 of all that follows and of the header, with this field as 0
    given      uint32    1 if some tokens are given rather than learned, else 0
    (padding)  8 bytes
    ids        tokens * width bytes
    (padding)  to a multiple of 8
    ends       documents * uint64: where each document ends in the ids
    given      a bit per token, lowest first: 1 for a token that training does not predict, such as
               those of a question; only if the header says so
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from atlas.cleaning.documents import Split
from atlas.errors import AtlasError
from atlas.pipeline.files import write_json

MAGIC, VERSION = b"ATLASTOK", 3
HEADER = struct.Struct("<8sIIQQ32sII8x")
ALIGNMENT = END_WIDTH = 8
CHECKSUM = slice(64, 68)  # position in the header
INDEX_FILE = "index.json"
CLEAN_HINT = "run `dvc repro -f clean` again"
HINT = "`dvc repro -f tokenize` writes it again"

# Flags above the bits of an id, in windows.
ID_BITS = (1 << 32) - 1
GIVEN = 1 << 32  # a token that is not predicted
ENDS = 1 << 33  # the last token of a document

Ids = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
Ends = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.bool_]


def id_width(vocab_size: int) -> int:
    """Return the bytes that an id takes on disk."""
    return 2 if vocab_size <= 1 << 16 else 4


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Return the file of a split's n-th shard."""
    return folder / f"{split}-{number:05d}.bin"


class ShardWriter:
    """Write a shard piece by piece; count its tokens and complete documents."""

    def __init__(self, path: Path, vocab_size: int, tokenizer_sha256: str) -> None:
        self.tokens = self.documents = 0
        self._width = id_width(vocab_size)
        self._tokenizer = bytes.fromhex(tokenizer_sha256)
        self._ends = bytearray()
        self._given, self._last_bits = bytearray(), np.zeros(0, np.bool_)  # of a byte in part
        self._checksum = 0
        self._file = path.open("wb")
        self._file.write(bytes(HEADER.size))

    def write(self, ids: npt.ArrayLike, ends: npt.ArrayLike, given: Bits | None = None) -> None:
        """Append ids, and the positions among them where documents end.

        ``given`` is True for tokens that are not predicted; None in each call if all are.
        """
        array = np.asarray(ids, f"<u{self._width}")
        document_ends = np.asarray(ends, "<u8") + np.uint64(self.tokens)
        self._ends += document_ends.tobytes()
        self.tokens += len(array)
        self.documents += len(document_ends)
        self._append(array.tobytes())
        if given is not None:
            bits = np.concatenate([self._last_bits, given])
            whole = len(bits) // 8 * 8
            self._given += np.packbits(bits[:whole], bitorder="little").tobytes()
            self._last_bits = bits[whole:]

    def close(self) -> None:
        """Write the document ends, which tokens are given, and the header."""
        self._append(bytes(-self.tokens * self._width % ALIGNMENT))
        self._append(self._ends)
        bits = self._given + np.packbits(self._last_bits, bitorder="little").tobytes()
        has_given = any(bits)  # plain texts of a tokenizer with a chat template have none
        self._append(bits if has_given else b"")
        header = [MAGIC, VERSION, self._width, self.tokens, self.documents, self._tokenizer]
        checksum = zlib.crc32(HEADER.pack(*header, 0, has_given), self._checksum)
        self._file.seek(0)
        self._file.write(HEADER.pack(*header, checksum, has_given))
        self._file.close()

    def _append(self, data: bytes | bytearray) -> None:
        self._file.write(data)
        self._checksum = zlib.crc32(data, self._checksum)


@dataclass(frozen=True)
class Shard:
    """A memory-mapped shard, read only."""

    ids: Ids  # of all its documents, (tokens,)
    ends: Ends  # where each document ends, (documents,)
    given: npt.NDArray[np.uint8] | None  # a bit per token; None if all are predicted
    checksum: int


def open_shard(path: Path, tokens: int, tokenizer_sha256: str) -> Shard:
    """Map a shard into memory, and verify its header, size and checksum."""
    try:
        size = path.stat().st_size
        data = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such token shard; {HINT}") from None
    header = bytearray(data[: HEADER.size]).ljust(HEADER.size, b"\0")
    magic, version, width, held, documents, tokenizer, checksum, has_given = HEADER.unpack(header)
    header[CHECKSUM] = bytes(4)
    first_end = HEADER.size + -(-held * width // ALIGNMENT) * ALIGNMENT
    first_bit = first_end + documents * END_WIDTH
    expected = first_bit + (-(-held // 8) if has_given else 0)
    if size < HEADER.size or magic != MAGIC:
        problem = "not a token shard"
    elif version != VERSION or width not in (2, 4):
        found = f"version {version} with {width} bytes per id"
        problem = f"{found}, but this program reads version {VERSION} with 2 or 4"
    elif tokenizer.hex() != tokenizer_sha256:
        problem = f"written with a tokenizer other than that of {INDEX_FILE}"
    elif held != tokens or size != expected:
        found, wanted = f"{size} bytes with {held} tokens", f"{expected} with {tokens}"
        problem = f"{found}, expected {wanted}: the file is cut short or damaged"
    elif zlib.crc32(header, zlib.crc32(data.data[HEADER.size :])) != checksum:
        problem = "wrong checksum, the file is damaged"
    else:
        ids = data[HEADER.size : HEADER.size + held * width].view(f"<u{width}")
        ends = data[first_end:first_bit].view("<u8")
        return Shard(ids, ends, data[first_bit:] if has_given else None, checksum)
    raise AtlasError(f"{path}: {problem}; {HINT}")


@dataclass(frozen=True)
class CorpusSize:
    """Size of a corpus of a mix within a split."""

    tokens: int
    documents: int
    bytes: int  # of text, in UTF-8

    def __add__(self, other: "CorpusSize") -> "CorpusSize":
        return CorpusSize(
            self.tokens + other.tokens, self.documents + other.documents, self.bytes + other.bytes
        )


@dataclass(frozen=True)
class SplitIndex:
    """Sizes of one split."""

    shards: list[int]  # ids in each
    documents: int
    bytes: int  # of text, in UTF-8
    # Of a mix, in the order of the text: clean keeps the order of raw files.
    corpora: dict[str, CorpusSize] = field(default_factory=dict)
    conversations: int = 0  # documents that a chat template has written

    def __add__(self, other: "SplitIndex") -> "SplitIndex":
        labels = [*self.corpora, *other.corpora]
        if len(set(labels)) < sum(1 for _ in groupby(labels)):
            raise AtlasError(f"data/clean: corpora of the mix alternate; {CLEAN_HINT}")
        none = CorpusSize(0, 0, 0)
        return SplitIndex(
            self.shards + other.shards,
            self.documents + other.documents,
            self.bytes + other.bytes,
            {
                label: self.corpora.get(label, none) + other.corpora.get(label, none)
                for label in self.corpora | other.corpora
            },
            self.conversations + other.conversations,
        )

    @property
    def tokens(self) -> int:
        """Ids in all shards."""
        return sum(self.shards)


@dataclass(frozen=True)
class TokenIndex:
    """Content of index.json."""

    vocab_size: int
    eos: int  # ends a document
    pad: int  # fills windows
    separator: int | None  # ends the prompt of each document: only what follows is learned
    tokenizer_sha256: str  # of its model file
    windows: Literal["packed", "padded"]
    splits: dict[Split, SplitIndex]
    bos: int | None = None  # first input of every window, if texts begin with one that is not eos
    document_mask: bool = False  # in training, tokens attend only to their own document

    @property
    def crosses_documents(self) -> bool:
        """True if a token may attend to another document."""
        return self.windows == "packed" and not self.document_mask

    def write(self, folder: Path) -> None:
        """Write index.json."""
        write_json(folder / INDEX_FILE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> "TokenIndex":
        """Read index.json."""
        path = folder / INDEX_FILE
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes(), strict=True)
        except (OSError, ValidationError) as error:
            raise AtlasError(f"{path}: not an index of tokens ({error}); {HINT}") from None


class TokenSplit:
    """The tokens of a split as one sequence over all its shards.

    With ``max_tokens``, only that many from the start; ``bytes`` still counts the whole split.
    """

    def __init__(self, folder: Path, split: Split, max_tokens: int | None = None) -> None:
        _raise_open_file_limit()
        self._folder = folder
        self._max_tokens = max_tokens
        self.name: Split = split
        self.index = TokenIndex.read(folder)
        if split not in self.index.splits:
            raise AtlasError(f"{folder / INDEX_FILE}: no split {split}; {HINT}")
        entry = self.index.splits[split]
        self.bytes = entry.bytes
        self._shards = [
            open_shard(shard_path(folder, split, number), tokens, self.index.tokenizer_sha256)
            for number, tokens in enumerate(entry.shards)
        ]
        self.checksum = zlib.crc32(str([shard.checksum for shard in self._shards]).encode())
        self._starts = np.cumsum([0, *(len(shard.ids) for shard in self._shards)])

    def __len__(self) -> int:
        total = int(self._starts[-1])
        return min(self._max_tokens or total, total)

    def __reduce__(self) -> tuple[type["TokenSplit"], tuple[Path, Split, int | None]]:
        """Pickle the path alone; another process maps the files itself."""
        return TokenSplit, (self._folder, self.name, self._max_tokens)

    @cached_property
    def document_ends(self) -> npt.NDArray[np.int64]:
        """Positions where complete documents end, (documents,)."""
        ends = [
            start + shard.ends.astype(np.int64)
            for start, shard in zip(self._starts, self._shards, strict=False)
        ]
        all_ends = np.concatenate([np.empty(0, np.int64), *ends])
        return all_ends[all_ends <= len(self)]

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return the tokens from ``start`` up to ``stop``, across shards."""
        parts = [shard.ids[first:last] for shard, first, last in self._parts(start, stop)]
        return np.concatenate([np.empty(0, np.int64), *parts])

    @cached_property
    def has_given(self) -> bool:
        """True if some tokens are given rather than predicted."""
        return any(shard.given is not None for shard in self._shards)

    def given(self, start: int, stop: int) -> Bits:
        """Return True for tokens that are not predicted, from ``start`` up to ``stop``."""
        parts = [np.empty(0, np.bool_)]
        for shard, first, last in self._parts(start, stop):
            if shard.given is None:
                parts.append(np.zeros(last - first, np.bool_))
            else:
                bits = shard.given[first // 8 : -(-last // 8)]
                found = np.unpackbits(bits, bitorder="little")[first % 8 :][: last - first]
                parts.append(found.astype(np.bool_))
        return np.concatenate(parts)

    def read_flagged(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Return tokens as ``read`` does; those that are not predicted have the flag ``GIVEN``."""
        ids = self.read(start, stop)
        if self.has_given:
            ids[self.given(start, stop)] |= GIVEN
        return ids

    def _parts(self, start: int, stop: int) -> Iterator[tuple[Shard, int, int]]:
        """Yield each shard that holds some of the tokens, and where they begin and end in it."""
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            offset = int(self._starts[number])
            end = min(stop, int(self._starts[number + 1]))
            yield self._shards[number], start - offset, end - offset
            start, number = end, number + 1


def _raise_open_file_limit() -> None:
    """Raise the limit: each shard keeps a file open, and the default is often only 1,024."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
