"""Read the rows of Parquet and Arrow files as documents."""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from atlas.cleaning.reading import decoding, records
from atlas.cleaning.reading.containers import BrokenFileError, is_plain, open_seekable
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.params.schema import CleanParams

MAX_BATCH_ROWS = 256  # rows held at once
MAX_BATCH_BYTES = 32 << 20  # of these rows, by their mean size
ARROW_FILE, FEATHER_1 = b"ARROW1", b"FEA1"  # the first bytes; a stream has no such mark


def read_parquet(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read the rows of some row groups of a Parquet file."""
    with _open_parquet(piece) as file:
        columns = _columns(file.schema_arrow, clean)
        groups = range(piece.start, file.num_row_groups if piece.stop is None else piece.stop)
        number = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
        rows = _batch_rows(file.metadata, groups)
        batches = file.iter_batches(rows, row_groups=groups, columns=columns)
        yield from _documents(batches, number, piece, clean, notes)


def read_arrow(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read the rows of an Arrow file or stream, also known as Feather."""
    with _open_arrow(piece) as (schema, batches):
        columns = _columns(schema, clean)
        slices = (part for batch in batches for part in _slices(batch.select(columns)))
        yield from _documents(slices, 0, piece, clean, notes)


def row_groups(whole: Piece, size: int) -> list[Piece]:
    """Divide a Parquet file into ranges of row groups with about ``size`` unpacked bytes."""
    with _open_parquet(whole) as file:
        metadata = file.metadata
    pieces = []
    start = unpacked = 0
    for stop in range(1, metadata.num_row_groups + 1):
        unpacked += metadata.row_group(stop - 1).total_byte_size
        last = stop == metadata.num_row_groups
        if unpacked >= size or last:
            pieces.append(replace(whole, start=start, stop=None if last else stop, size=unpacked))
            start, unpacked = stop, 0
    return pieces


def _documents(
    batches: Iterable[Any], number: int, piece: Piece, clean: CleanParams, notes: Notes
) -> Iterator[Item]:
    """Convert the rows of batches to documents; ``number`` rows come before them."""
    encoding = None  # of bytes that are not UTF-8
    key = records.plain_key(clean)
    for batch in batches:
        rows, decoded = _rows(batch)
        if not decoded and encoding is None:
            invalid = [each for row in rows for each in _bytes(row) if not decoding.is_utf8(each)]
            encoding = _guess(invalid, piece, notes) if invalid else None
        for row in rows:
            number += 1
            identity = f"{piece.name}:{number}"
            try:
                record = row if decoded else _decoded(row, encoding)
            except UnicodeDecodeError as error:
                yield Rejection(identity, "not_utf8" if encoding else "not_text", str(error))
                continue
            document = records.plain_document(record, key, identity, piece.name)
            if document:
                yield document  # the usual case, without detours
            else:
                yield from records.record_documents(
                    record, identity, piece.name, clean, notes.counts
                )


def _rows(batch: Any) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of a batch, and False if their texts are bytes, perhaps not in UTF-8."""
    from pyarrow import ArrowInvalid, RecordBatch

    decoded = "binary" not in str(batch.schema)
    try:
        batch.validate(full=True)  # reading the values of a damaged batch can crash
    except ArrowInvalid:
        decoded = False
    if not decoded:
        columns = [_as_bytes(column) for column in batch.columns]
        batch = RecordBatch.from_arrays(columns, names=batch.schema.names)
        batch.validate(full=True)
    rows: list[dict[str, Any]] = batch.to_pylist(maps_as_pydicts="lossy")
    return rows, decoded


def _as_bytes(column: Any) -> Any:
    from pyarrow import binary, large_binary, types

    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if types.is_string(column.type):
        return column.cast(binary())
    if types.is_large_string(column.type) or types.is_string_view(column.type):
        return column.cast(large_binary())
    return column


def _bytes(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _bytes(each)


def _guess(invalid: list[bytes], piece: Piece, notes: Notes) -> str | None:
    """Guess the encoding of values that are not UTF-8; None if they are not text."""
    try:
        guess = decoding.guess_encoding(b"\n".join(invalid)[: decoding.SAMPLE], whole=False)
    except NotTextError:
        return None
    if guess.guessed:
        notes.guess(piece.name, guess.encoding)
    return guess.encoding


def _decoded(value: Any, encoding: str | None) -> Any:
    """Return a value with its bytes decoded, as UTF-8 or else in the given encoding."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            if encoding in (None, "utf-8"):
                raise
            return value.decode(encoding, errors="replace")
    if isinstance(value, dict):
        return {key: _decoded(each, encoding) for key, each in value.items()}
    if isinstance(value, list):
        return [_decoded(each, encoding) for each in value]
    return value


def _columns(schema: Any, clean: CleanParams) -> list[str]:
    """Choose the columns to read; raise if there is neither a text nor a conversation."""
    record = {field.name: _skeleton(field.type) for field in schema}
    problem = records.template_problem([record], clean, "column")
    if problem or not records.is_record(record, clean):
        detail = problem or records.missing_field([record], clean, "column")
        raise BrokenFileError("no_text_column", detail)
    paths = records.paths(clean)
    used = [
        name
        for name in record
        if any(path == name or path.startswith(f"{name}.") for path in paths)
    ]
    others = record if not used else [name for name in (records.SOURCE,) if name in record]
    return [name for name in record if name in used or name in others]


def _skeleton(kind: Any) -> Any:
    """Return an empty value of an Arrow type, with the keys of its structs."""
    from pyarrow import types

    if types.is_struct(kind):
        return {kind.field(n).name: _skeleton(kind.field(n).type) for n in range(kind.num_fields)}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_skeleton(kind.value_type)]
    is_text = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return "..." if types.is_dictionary(kind) or any(each(kind) for each in is_text) else None


def _batch_rows(metadata: Any, groups: range) -> int:
    chosen = [metadata.row_group(group) for group in groups]
    largest = max((each.total_byte_size // max(1, each.num_rows) for each in chosen), default=0)
    return max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // max(1, largest)))


def _slices(batch: Any) -> Iterator[Any]:
    mean = batch.nbytes // max(1, batch.num_rows)
    rows = max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // max(1, mean)))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


@contextlib.contextmanager
def _open_parquet(piece: Piece) -> Iterator[Any]:  # pyarrow has no type hints
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    with open_seekable(piece) as stream:
        source = piece.path if is_plain(stream) else stream
        try:
            yield ParquetFile(source, memory_map=source is piece.path, pre_buffer=False)
        except (ArrowException, OSError, ValueError, OverflowError) as error:
            raise BrokenFileError("broken_parquet", str(error)) from error


@contextlib.contextmanager
def _open_arrow(piece: Piece) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Open an Arrow file or stream; yield its schema and its batches."""
    import pyarrow
    from pyarrow import ipc

    with open_seekable(piece) as stream:
        mark = stream.read(len(ARROW_FILE))
        stream.seek(0)
        try:
            if mark.startswith(FEATHER_1):
                raise BrokenFileError("broken_arrow", "Feather version 1; save it as version 2")
            source = pyarrow.memory_map(str(piece.path)) if is_plain(stream) else stream
            if mark == ARROW_FILE:
                file = ipc.open_file(source)
                yield file.schema, map(file.get_batch, range(file.num_record_batches))
            else:
                batches = ipc.open_stream(source)
                yield batches.schema, iter(batches)
        except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
            raise BrokenFileError("broken_arrow", str(error)) from error
