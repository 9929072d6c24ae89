"""``atlas inspect``: print the contents of any GGUF file."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, ReaderField
from rich.table import Table

from atlas.errors import AtlasError
from atlas.tools.console import plain_console, printable

MAGIC = b"GGUF"
MAX_CHARACTERS, MAX_ITEMS = 80, 5  # printed of a value, and of a list


def print_gguf(path: Path) -> None:
    """Print the header, the metadata, a table of types and a table of tensors."""
    reader = open_gguf(path)
    with _damage_as_error(path):
        weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
        stored = sum(int(tensor.n_bytes) for tensor in reader.tensors)
        version = int(reader.fields["GGUF.version"].contents())
        tables = (
            _table(("key", "type", "value"), _metadata(reader)),
            _table(("type", "tensors", "values", "bytes"), _types(reader)),
            _table(("tensor", "type", "shape", "bytes"), _tensors(reader)),
        )
    console = plain_console()
    console.print(
        f"{path}: GGUF version {version}, {path.stat().st_size:,} bytes, "
        f"{len(reader.tensors)} tensors of {weights:,} values, "
        f"{8 * stored / max(weights, 1):.2f} bits each",
        soft_wrap=True,
    )
    for table in tables:
        console.print()
        console.print(table)


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


def _types(reader: GGUFReader) -> Iterator[tuple[str, str, str, str]]:
    tensors: Counter[str] = Counter()
    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for tensor in reader.tensors:
        name = tensor.tensor_type.name
        tensors[name] += 1
        values[name] += int(np.prod(tensor.shape))
        sizes[name] += int(tensor.n_bytes)
    for name, count in tensors.most_common():
        yield name, str(count), f"{values[name]:,}", f"{sizes[name]:,}"


def _tensors(reader: GGUFReader) -> Iterator[tuple[str, str, str, str]]:
    for tensor in reader.tensors:
        shape = " x ".join(str(int(size)) for size in reversed(tensor.shape))
        yield tensor.name, tensor.tensor_type.name, shape, f"{int(tensor.n_bytes):,}"


def _table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        justify: Any = "right" if title in ("tensors", "values", "bytes") else "left"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=title != "value")
    for row in rows:
        table.add_row(*map(printable, row))
    return table
