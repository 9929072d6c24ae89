"""``atlas inspect``: print the contents of any GGUF file."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType, ReaderField

from atlas.errors import AtlasError
from atlas.tools.console import print_table

MAGIC = b"GGUF"
MAX_CHARACTERS, MAX_ITEMS = 80, 5  # printed of a value, and of a list


def print_gguf(path: Path) -> None:
    """Print the header, the metadata, a table of types and a table of tensors."""
    reader = open_gguf(path)
    tensors = []
    # Number of tensors, values and bytes of each type.
    totals: dict[str, Any] = defaultdict(lambda: np.zeros(3, np.int64))
    with _damage_as_error(path):
        version = int(reader.fields["GGUF.version"].contents())
        metadata = [
            (key, _type(field), _value(field))
            for key, field in reader.fields.items()
            if not key.startswith("GGUF.")
        ]
        for tensor in reader.tensors:
            kind, size = tensor.tensor_type.name, int(tensor.n_bytes)
            shape = " x ".join(str(int(size)) for size in reversed(tensor.shape))
            tensors.append((tensor.name, kind, shape, f"{size:,}"))
            totals[kind] += (1, int(tensor.n_elements), size)
    _, weights, stored = sum(totals.values(), np.zeros(3, np.int64))
    by_count = sorted(totals.items(), key=lambda item: -item[1][0])
    types = [(kind, *(f"{number:,}" for number in total)) for kind, total in by_count]
    bits = 8 * stored / max(weights, 1)
    print(
        f"{path}: GGUF version {version}, {path.stat().st_size:,} bytes, "
        f"{len(tensors)} tensors of {weights:,} values, {bits:.2f} bits each"
    )
    print()
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


def _type(field: ReaderField) -> str:
    return "[".join(kind.name.lower() for kind in field.types) + "]" * (len(field.types) - 1)


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
