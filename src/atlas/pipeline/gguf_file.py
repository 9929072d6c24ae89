"""Read the header of a GGUF file, and check every size in it against the size of the file.

Files come from anywhere. gguf-py and llama.cpp trust their counts: 49 bytes can claim an array of
2^60 items. Here each count is checked before it is used, and arrays are read without being kept
unless asked for, so that time and memory are bounded.
"""

import math
import os
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from atlas.errors import AtlasError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
KEPT_ITEMS = 5  # of an array
MAX_NAME, MAX_KEY, MAX_TEXT = 63, 65535, 1 << 24  # bytes; the first is llama.cpp's limit
MAX_DIMENSIONS, MAX_DEPTH = 4, 4
MAX_ENTRIES, MAX_TEXTS = 1 << 20, 1 << 23  # keys, tensors or nested arrays; texts of an array
MIN_ENTRY, MIN_TENSOR = 13, 24  # bytes of a key with its value, and of a tensor's description
DEFAULT_ALIGNMENT = 32
STRING, ARRAY = GGUFValueType.STRING, GGUFValueType.ARRAY
FORMATS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.BOOL: "?",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
}
# Bytes of an item at least, and how many may be read one by one.
MIN_ITEMS = {STRING: (8, MAX_TEXTS), ARRAY: (12, MAX_ENTRIES)}
ByteOrder = Literal["little", "big"]


@dataclass(frozen=True)
class Field:
    """A value of the metadata; of an array, its length and first items, or all items if asked."""

    kinds: tuple[GGUFValueType, ...]  # of an array, also the type of its items
    value: Any  # the items of an array that were kept, whatever their nesting
    count: int | None = None  # of all items of an array


@dataclass(frozen=True)
class Tensor:
    """The description of a tensor."""

    name: str
    kind: GGMLQuantizationType
    shape: tuple[int, ...]  # as in the file: the first dimension is that of a row
    offset: int  # from the beginning of the file
    size: int  # bytes

    @property
    def values(self) -> int:
        """The number of its values."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GGUFFile:
    """The header of a file."""

    version: int
    byte_order: ByteOrder
    size: int  # bytes of the file
    fields: Mapping[str, Field]
    tensors: tuple[Tensor, ...]

    def get(self, key: str, default: Any = None) -> Any:
        """A value, or the items of an array that were kept."""
        return self.fields[key].value if key in self.fields else default

    def length(self, key: str) -> int | None:
        """The length of an array; None if there is none."""
        return self.fields[key].count if key in self.fields else None


def read_gguf(path: Path, whole: Collection[str] = ()) -> GGUFFile:
    """Read and check a header; the tensors are checked, but not read.

    Keeps the first few items of each array, and all items of those whose keys are in ``whole``.
    """
    try:
        with path.open("rb") as file:
            return _Header(file, path, whole).read()
    except OSError as error:
        raise AtlasError(f"{path}: {error.strerror}; pass the path of a GGUF file") from None


class _Header:
    """The header of an open file."""

    def __init__(self, file: BinaryIO, path: Path, whole: Collection[str]) -> None:
        self._file, self._path, self._whole = file, path, whole
        self._size = os.fstat(file.fileno()).st_size
        self._order = "<"

    def read(self) -> GGUFFile:
        """Read everything before the data of the tensors."""
        if (magic := self._file.read(len(MAGIC))) != MAGIC:
            raise AtlasError(
                f"{self._path}: not a GGUF file (it begins with {magic!r}, not {MAGIC!r})"
            )
        version = self._version()
        tensors, entries = self._number("Q"), self._number("Q")
        self._check_count(entries, MIN_ENTRY, "keys", MAX_ENTRIES)
        self._check_count(tensors, MIN_TENSOR, "tensors", MAX_ENTRIES)
        fields: dict[str, Field] = {}
        for _ in range(entries):
            key = self._text(MAX_KEY, "a key")
            if key in fields:
                self._damaged(f"the key {key[:80]!r} occurs twice")
            fields[key] = self._field(self._kind(), key)
        described = tuple(self._tensors(tensors, fields))
        order: ByteOrder = "little" if self._order == "<" else "big"
        return GGUFFile(version, order, self._size, fields, described)

    def _version(self) -> int:
        """The version; its bytes also tell the byte order, as versions are small."""
        data = self._bytes(4)
        little, big = (int.from_bytes(data, order) for order in ("little", "big"))
        self._order, version = ("<", little) if little <= big else (">", big)
        if version not in VERSIONS:
            raise AtlasError(
                f"{self._path}: version {version} of GGUF; Atlas reads versions 2 and 3, so "
                "convert the model again with a current program"
            )
        return version

    def _field(self, kind: GGUFValueType, key: str) -> Field:
        if kind != ARRAY:
            return Field((kind,), self._value(kind, key))
        items: list[Any] = []
        kinds, count = self._array(items, key, 1)
        return Field((ARRAY, *kinds), items, count)

    def _array(
        self, items: list[Any], key: str, depth: int
    ) -> tuple[tuple[GGUFValueType, ...], int]:
        """Read an array, and add to ``items`` those to keep; return its types and length."""
        kind, count = self._kind(), self._number("Q")
        least, most = MIN_ITEMS.get(kind) or (struct.calcsize(f"={FORMATS[kind]}"), self._size)
        self._check_count(count, least, f"items of {key[:80]!r}", most)
        if kind == ARRAY:
            if depth == MAX_DEPTH:
                self._damaged(f"the arrays of {key[:80]!r} are nested too deeply")
            inner: set[tuple[GGUFValueType, ...]] = set()
            total = 0
            for _ in range(count):
                kinds, number = self._array(items, key, depth + 1)
                inner.add(kinds)
                total += number
            return (ARRAY, *(inner.pop() if len(inner) == 1 else ())), total
        kept = count if key in self._whole else min(count, max(0, KEPT_ITEMS - len(items)))
        if kind == STRING:
            items.extend(self._value(kind, key) for _ in range(kept))
        else:
            data = self._bytes(kept * least)
            items.extend(struct.unpack(f"{self._order}{kept}{FORMATS[kind]}", data))
        if kind == STRING:
            for _ in range(count - kept):
                self._skip(self._number("Q"), f"a text of {key[:80]!r}")
        else:
            self._skip((count - kept) * least, f"the array {key[:80]!r}")
        return (kind,), count

    def _tensors(self, count: int, fields: Mapping[str, Field]) -> Iterator[Tensor]:
        """Read the descriptions of tensors, and check that their data are in the file."""
        alignment = self._alignment(fields)
        found = [self._tensor(alignment) for _ in range(count)]
        if len({tensor.name for tensor in found}) < count:
            self._damaged("two tensors have the same name")
        start = -(-self._file.tell() // alignment) * alignment
        placed = [
            Tensor(each.name, each.kind, each.shape, start + each.offset, each.size)
            for each in found
        ]
        for tensor in placed:
            if tensor.offset + tensor.size > self._size:
                self._damaged(f"the tensor {tensor.name!r} ends after the file")
        in_order = sorted(placed, key=lambda tensor: (tensor.offset, tensor.size))
        for one, other in pairwise(in_order):
            if one.offset + one.size > other.offset:
                self._damaged(f"the tensors {one.name!r} and {other.name!r} overlap")
        yield from placed

    def _tensor(self, alignment: int) -> Tensor:
        """Read a description; its offset is still from the beginning of the data."""
        name = self._text(MAX_NAME, "the name of a tensor")
        dimensions = self._number("I")
        if dimensions > MAX_DIMENSIONS:
            self._damaged(f"the tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        row = shape[0] if shape else 1
        number, offset = self._number("I"), self._number("Q")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            self._damaged(f"the tensor {name!r} has the unknown type {number}")
        per_block, block = GGML_QUANT_SIZES[kind]
        values = math.prod(shape)
        if not values:
            self._damaged(f"the tensor {name!r} is empty")
        if row % per_block:
            self._damaged(f"the tensor {name!r} has rows of {row}, not blocks of {per_block}")
        if offset % alignment:
            self._damaged(f"the tensor {name!r} is not aligned to {alignment} bytes")
        size = values // per_block * block
        if max(size, offset) > self._size:
            self._damaged(f"the tensor {name!r} is larger than the file")
        return Tensor(name, kind, shape, offset, size)

    def _alignment(self, fields: Mapping[str, Field]) -> int:
        field = fields.get("general.alignment", Field((GGUFValueType.UINT32,), DEFAULT_ALIGNMENT))
        alignment = field.value
        if field.kinds != (GGUFValueType.UINT32,) or alignment < 8 or alignment.bit_count() != 1:
            self._damaged("general.alignment is not a power of two")
        return int(alignment)

    def _kind(self) -> GGUFValueType:
        number = self._number("I")
        try:
            return GGUFValueType(number)
        except ValueError:
            self._damaged(f"the type {number} of a value is unknown")

    def _value(self, kind: GGUFValueType, key: str) -> Any:
        if kind == STRING:
            return self._text(MAX_TEXT, f"the text {key[:80]!r}")
        return self._number(FORMATS[kind])

    def _number(self, number_format: str) -> Any:
        (number,) = struct.unpack(
            self._order + number_format, self._bytes(struct.calcsize(f"={number_format}"))
        )
        return number

    def _text(self, longest: int, name: str) -> str:
        length = self._number("Q")
        if length > longest:
            self._damaged(f"{name} has {length:,} bytes")
        return self._bytes(length).decode("utf-8", errors="backslashreplace")

    def _bytes(self, count: int) -> bytes:
        data = self._file.read(count) if count <= self._size else b""
        if len(data) < count:
            self._damaged("the header ends after the file")
        return data

    def _skip(self, count: int, name: str) -> None:
        if count > self._size - self._file.tell():
            self._damaged(f"{name} ends after the file")
        self._file.seek(count, os.SEEK_CUR)

    def _check_count(self, count: int, least: int, name: str, most: int) -> None:
        """Reject more items than allowed, or than the rest of the file has room for."""
        if count > most:
            self._damaged(f"{count:,} {name} are too many")
        if count * least > self._size - self._file.tell():
            self._damaged(f"{count:,} {name} don't fit in the file")

    def _damaged(self, reason: str) -> NoReturn:
        raise AtlasError(
            f"{self._path}: damaged, or cut short at {self._size:,} bytes ({reason}); download or "
            "export it again"
        )
