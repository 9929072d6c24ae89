"""Read rows of CSV and Parquet files in bounded memory."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from atlas.cleaning.reading.decoding import REPLACEMENT, encoding_sample, guess_encoding
from atlas.cleaning.reading.streams import MAX_LINE, BrokenFileError

MAX_ROW = MAX_LINE  # characters, over all lines of the row
MAX_BATCH_ROWS = 256  # rows of a Parquet file held at once
MAX_BATCH_BYTES = 32 << 20  # of these rows, by their mean size
EXTRA_FIELDS = ""  # key of fields beyond the columns; no column has this name


def read_csv(
    stream: BinaryIO, text_field: str, notes: Counter[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a CSV file with their numbers; the first line names the columns.

    Fields beyond the columns are listed under EXTRA_FIELDS.
    """
    sample = encoding_sample(stream)
    guess = guess_encoding(sample, whole=False)
    notes[f"guessed_{guess.encoding}"] += guess.guessed
    stream.seek(0)
    text = io.TextIOWrapper(stream, guess.encoding, errors="replace", newline="")
    lines = _Lines(text, notes)
    header = sample.decode(guess.encoding, errors="replace").partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    old_limit = csv.field_size_limit(MAX_ROW)  # global, so it is restored below
    try:
        rows = csv.DictReader(lines, restkey=EXTRA_FIELDS, restval="", delimiter=delimiter)
        if rows.fieldnames:
            _check_column(text_field, list(rows.fieldnames))
        lines.start_row()
        for number, row in enumerate(rows, start=2):
            lines.check_quotes(number)
            lines.start_row()
            yield number, row
    except csv.Error as error:
        raise BrokenFileError("broken_csv", str(error)) from error
    finally:
        csv.field_size_limit(old_limit)
        text.detach()  # the caller closes the stream


class _Lines:
    """Lines of a CSV file; limits the length of a row and counts its quotes."""

    def __init__(self, text: io.TextIOWrapper, notes: Counter[str]) -> None:
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
            self._notes["replaced_bytes"] += line.count(REPLACEMENT)
            if self._characters > MAX_ROW:
                raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
            yield line
        self._ended = True

    def check_quotes(self, number: int) -> None:
        """Raise if the file ended in an open quote, which Python's reader silently accepts."""
        if self._ended and self._lines > 1 and self._quotes % 2:
            raise csv.Error(f"a quote in row {number} is never closed")


def row_groups(path: Path, size: int) -> list[tuple[int, int | None, int]]:
    """Divide a Parquet file into ranges of about ``size`` bytes: first row group, end, bytes.

    Returns an empty list for an unreadable file; ``read_parquet`` reports the error.
    """
    try:
        metadata = _open(path).metadata
    except BrokenFileError:
        return []
    ranges: list[tuple[int, int | None, int]] = []
    start = pending = 0
    last = metadata.num_row_groups - 1
    for group in range(metadata.num_row_groups):
        pending += metadata.row_group(group).total_byte_size
        if pending >= size or group == last:
            ranges.append((start, None if group == last else group + 1, pending))
            start, pending = group + 1, 0
    return ranges


def read_parquet(
    path: Path, start: int, stop: int | None, text_field: str, source: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a range of row groups with their numbers, which start at 1.

    They have the column ``text_field`` and, if the file has it, ``source``.
    """
    from pyarrow import ArrowException

    file = _open(path)
    names = file.schema_arrow.names
    _check_column(text_field, names)
    try:
        groups = range(start, file.num_row_groups if stop is None else stop)
        number = sum(file.metadata.row_group(group).num_rows for group in range(start))
        present = [name for name in names if name in (text_field, source)]
        rows = _batch_rows(file.metadata, groups)
        for batch in file.iter_batches(rows, row_groups=groups, columns=present):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise BrokenFileError("broken_parquet", str(error)) from error


def _batch_rows(metadata: Any, groups: range) -> int:
    chosen = [metadata.row_group(group) for group in groups]
    largest = max((each.total_byte_size // max(1, each.num_rows) for each in chosen), default=0)
    return max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // max(1, largest)))


def _open(path: Path) -> Any:  # pyarrow has no type hints
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path, memory_map=True, pre_buffer=False)
    except (ArrowException, OSError, ValueError) as error:
        raise BrokenFileError("broken_parquet", str(error)) from error


def _check_column(text_field: str, names: list[str]) -> None:
    if text_field not in names:
        columns = ", ".join(map(str, names))
        raise BrokenFileError(
            "no_text_column", f'no column "{text_field}" (clean.text_field) among {columns}'
        )
