"""Read the rows of tables as documents: CSV, TSV, Parquet."""

import contextlib
import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from atlas.cleaning.reading import decoding
from atlas.cleaning.reading.containers import BrokenFileError, is_plain, open_seekable, open_stream
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.records import SOURCE, record_document
from atlas.cleaning.reading.streams import MAX_LINE
from atlas.params.schema import CleanParams

MAX_ROW = MAX_LINE  # characters, over all lines of the row
MAX_BATCH_ROWS = 256  # rows of a Parquet file held at once
MAX_BATCH_BYTES = 32 << 20  # of these rows, by their mean size
EXTRA_FIELDS = ""  # key of fields beyond the columns; no column has this name


def read_csv(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read the rows of a CSV file."""
    with open_stream(piece) as stream:
        sample = decoding.encoding_sample(stream)
        guess = decoding.guess_encoding(sample, whole=False)
        if guess.guessed:
            notes.guessed[piece.name] = guess.encoding
        stream.seek(0)
        text = io.TextIOWrapper(stream, guess.encoding, errors="replace", newline="")
        lines = _Lines(text, notes)
        header = sample.decode(guess.encoding, errors="replace").partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        old_limit = csv.field_size_limit(MAX_ROW)  # global, so it is restored below
        try:
            rows = csv.DictReader(lines, restkey=EXTRA_FIELDS, restval="", delimiter=delimiter)
            if rows.fieldnames:
                _check_column(clean.text_field, list(rows.fieldnames))
            lines.start_row()
            for number, row in enumerate(rows, start=2):
                lines.end_row(number)
                identity = f"{piece.name}:{number}"
                if EXTRA_FIELDS in row:
                    count = len(row[EXTRA_FIELDS])
                    detail = f"{count} more than the header has: is a quote missing?"
                    yield Rejection(identity, "too_many_fields", detail)
                else:
                    yield record_document(row, identity, piece.name, clean.text_field)
        except csv.Error as error:
            raise BrokenFileError("broken_csv", str(error)) from error
        finally:
            csv.field_size_limit(old_limit)
            text.detach()  # open_stream closes the stream


class _Lines:
    """Lines of a CSV file; limits the length of a row and counts its quotes."""

    def __init__(self, text: io.TextIOWrapper, notes: Notes) -> None:
        self._text = text
        self._notes = notes
        self._ended = False
        self.start_row()

    def start_row(self) -> None:
        """Reset the counts for a new row."""
        self._lines = self._quotes = self._characters = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(MAX_ROW + 1):
            self._lines += 1
            self._quotes += line.count('"')
            self._characters += len(line)
            self._notes.counts["replaced_bytes"] += line.count(decoding.REPLACEMENT)
            if self._characters > MAX_ROW:
                raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
            yield line
        self._ended = True

    def end_row(self, number: int) -> None:
        """Raise if the file ended in an open quote, which Python's reader silently accepts."""
        if self._ended and self._lines > 1 and self._quotes % 2:
            raise csv.Error(f"a quote in row {number} is never closed")
        self.start_row()


def read_parquet(piece: Piece, clean: CleanParams, _: Notes) -> Iterator[Item]:
    """Read the rows of some row groups of a Parquet file."""
    with _open_parquet(piece) as file:
        names = file.schema_arrow.names
        _check_column(clean.text_field, names)
        groups = range(piece.start, file.num_row_groups if piece.stop is None else piece.stop)
        number = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
        present = [name for name in names if name in (clean.text_field, SOURCE)]
        rows = _batch_rows(file.metadata, groups)
        for batch in file.iter_batches(rows, row_groups=groups, columns=present):
            for row in batch.to_pylist():
                number += 1
                yield record_document(row, f"{piece.name}:{number}", piece.name, clean.text_field)


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
            pieces.append(replace(whole, start=start, stop=None if last else stop, bytes=unpacked))
            start, unpacked = stop, 0
    return pieces


def _batch_rows(metadata: Any, groups: range) -> int:
    chosen = [metadata.row_group(group) for group in groups]
    largest = max((each.total_byte_size // max(1, each.num_rows) for each in chosen), default=0)
    return max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // max(1, largest)))


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


def _check_column(text_field: str, names: list[str]) -> None:
    if text_field not in names:
        columns = ", ".join(map(str, names))
        detail = f'no column "{text_field}" (clean.text_field) among {columns}'
        raise BrokenFileError("no_text_column", detail)
