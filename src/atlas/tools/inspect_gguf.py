"""``atlas inspect``: print the contents of any GGUF file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType, ReaderField, ReaderTensor

from atlas.errors import AtlasError
from atlas.tools.console import print_table

MAGIC = b"GGUF"
MAX_CHARACTERS, MAX_ITEMS = 80, 5  # printed of a value, and of a list


def print_gguf(path: Path) -> None:
    """Print the header, the metadata, a table of types and a table of tensors."""
    reader = open_gguf(path)
    with _damage_as_error(path):
        weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
        stored = sum(int(tensor.n_bytes) for tensor in reader.tensors)
        version = int(reader.fields["GGUF.version"].contents())
        metadata, types = list(_metadata(reader)), list(_types(reader))
        tensors = list(_tensors(reader))
    print(
        f"{path}: GGUF version {version}, {path.stat().st_size:,} bytes, "
        f"{len(reader.tensors)} tensors of {weights:,} values, "
        f"{8 * stored / max(weights, 1):.2f} bits each\n"
    )
    print_table(("key", "type", "value"), metadata)
    print()
    print_table(("type", "tensors", "values", "bytes"), types, right=(1, 2, 3))
    print()
    print_table(("tensor", "type", "shape", "bytes"), tensors, right=(3,))


def open_gguf(path: Path) -> GGUFReader:
    """Open a file; its tensors are memory-mapped, not read."""
    try:
        with path.open("rb") as file:
            magic = file.read(len(MAGIC))
    except OSError as error:
        raise AtlasError(f"{path}: {error.strerror}; pass the path of a GGUF file") from None
    if magic != MAGIC:
        raise AtlasError(f"{path}: not a GGUF file (it begins with {magic!r}, not {MAGIC!r})")
    with _damage_as_error(path):
        return GGUFReader(path)


@contextmanager
def _damage_as_error(path: Path) -> Iterator[None]:
    """Report any error of gguf-py as a damaged file."""
    try:
        yield
    except (ValueError, IndexError, KeyError, OverflowError):
        size = path.stat().st_size
        raise AtlasError(
            f"{path}: damaged, or cut short at {size:,} bytes; download or export it again"
        ) from None


def _metadata(reader: GGUFReader) -> Iterator[tuple[str, str, str]]:
    for key, field in reader.fields.items():
        if not key.startswith("GGUF."):
            kinds = "[".join(kind.name.lower() for kind in field.types)
            yield key, kinds + "]" * (len(field.types) - 1), _value(field)


def _value(field: ReaderField) -> str:
    """Format a value in one line; a list as its length and first items."""
    if field.types[0] != GGUFValueType.ARRAY:
        return _shorten(field.contents())
    items = [field.contents(index) for index in range(min(MAX_ITEMS, len(field.data)))]
    more = ", ..." if len(field.data) > MAX_ITEMS else ""
    nested = " values" if GGUFValueType.ARRAY in field.types[1:] else ""
    return f"{len(field.data):,}{nested}: {', '.join(map(_shorten, items))}{more}"


def _shorten(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.7g}"  # as many digits as float32 has
    text = repr(value) if isinstance(value, str) else str(value)
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}... ({len(value):,} characters)"


def _types(reader: GGUFReader) -> Iterator[tuple[str, int, str, str]]:
    by_type: dict[str, list[ReaderTensor]] = {}
    for tensor in reader.tensors:
        by_type.setdefault(tensor.tensor_type.name, []).append(tensor)
    for name, tensors in sorted(by_type.items(), key=lambda item: -len(item[1])):
        values = sum(int(tensor.n_elements) for tensor in tensors)
        size = sum(int(tensor.n_bytes) for tensor in tensors)
        yield name, len(tensors), f"{values:,}", f"{size:,}"


def _tensors(reader: GGUFReader) -> Iterator[tuple[str, str, str, str]]:
    for tensor in reader.tensors:
        shape = " x ".join(str(int(size)) for size in reversed(tensor.shape))
        yield tensor.name, tensor.tensor_type.name, shape, f"{int(tensor.n_bytes):,}"
