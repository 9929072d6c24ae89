"""Rows of CSV and Parquet files."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from atlas.cleaning.reading.decoding import REPLACEMENT, Guess, guess_encoding, telling_sample
from atlas.cleaning.reading.streams import LONGEST_LINE, BrokenFileError

LONGEST_ROW = LONGEST_LINE  # characters, however many lines it has
MOST_ROWS = 256  # of a Parquet file that are held at once
HELD = 32 << 20  # bytes of them, if all rows were equally long
SURPLUS = ""  # the key of fields beyond the columns; no column has this name


def read_csv(
    stream: BinaryIO, text_field: str, noted: Counter[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a CSV file, each with its number; the first line names the columns.

    A row with more fields than there are columns has a list of them under SURPLUS.

    Args:
        stream: the file; it can seek.
        text_field: a column that must be there.
        noted: counts a guessed encoding, and what meant nothing in it; added to.

    Raises:
        BrokenFileError: the column is missing, a quote is never closed, or a row does not end.
    """
    sample = telling_sample(stream)
    guess = guess_encoding(sample, whole=False)
    noted[f"guessed_{guess.encoding}"] += guess.guessed
    stream.seek(0)
    text = io.TextIOWrapper(stream, guess.encoding, errors="replace", newline="")
    lines = _Lines(text, noted)
    limit = csv.field_size_limit(LONGEST_ROW)  # one for the whole process
    try:
        rows = csv.DictReader(lines, restkey=SURPLUS, restval="", dialect=_dialect(sample, guess))
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
        csv.field_size_limit(limit)
        text.detach()  # the stream is closed by the one who opened it


class _Lines:
    """The lines of a table, with what is to be known of the row that they make up."""

    def __init__(self, text: io.TextIOWrapper, noted: Counter[str]) -> None:
        self._text = text
        self._noted = noted
        self._ended = False
        self.start_row()

    def start_row(self) -> None:
        """The next line begins a row."""
        self._lines = self._quotes = self._characters = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._text.readline(LONGEST_ROW + 1):
            self._lines += 1
            self._quotes += line.count('"')
            self._characters += len(line)
            self._noted["replaced_bytes"] += line.count(REPLACEMENT)
            if self._characters > LONGEST_ROW:
                raise csv.Error(f"a row of more than {LONGEST_ROW:,} characters")
            yield line
        self._ended = True

    def check_quotes(self, number: int) -> None:
        """Python's reader lets an open quote take all that follows, and says nothing."""
        if self._ended and self._lines > 1 and self._quotes % 2:
            raise csv.Error(f"a quote in row {number} is never closed")


def _dialect(sample: bytes, guess: Guess) -> type[csv.Dialect]:
    first = sample.decode(guess.encoding, errors="replace").partition("\n")[0]

    class Found(csv.excel):
        delimiter = max(",;\t", key=first.count)

    return Found


def row_groups(path: Path, size: int) -> list[tuple[int, int | None, int]]:
    """A Parquet file divided into parts of some ``size`` bytes: first row group, end, bytes.

    Empty for a file that can't be read: the one who reads it will say so.
    """
    try:
        metadata = _open(path).metadata
    except BrokenFileError:
        return []
    parts: list[tuple[int, int | None, int]] = []
    start = waiting = 0
    for group in range(metadata.num_row_groups):
        waiting += metadata.row_group(group).total_byte_size
        if waiting >= size or group == metadata.num_row_groups - 1:
            parts.append((start, group + 1, waiting))
            start, waiting = group + 1, 0
    if parts:
        parts[-1] = (*parts[-1][:1], None, parts[-1][2])
    return parts


def read_parquet(
    path: Path, start: int, stop: int | None, text_field: str, others: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of some row groups of a Parquet file, each with its number from 1.

    Only ``text_field``, which must be there, and those of ``others`` that are there are read.

    Raises:
        BrokenFileError: the file is damaged, or has no such column.
    """
    from pyarrow import ArrowException

    file = _open(path)
    names = file.schema_arrow.names
    _check_column(text_field, names)
    try:
        groups = range(start, file.num_row_groups if stop is None else stop)
        number = sum(file.metadata.row_group(group).num_rows for group in range(start))
        present = [name for name in names if name in (text_field, *others)]
        rows = _rows_at_once(file.metadata, groups)
        for batch in file.iter_batches(rows, row_groups=groups, columns=present):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise BrokenFileError("broken_parquet", str(error)) from error


def _rows_at_once(metadata: Any, groups: range) -> int:
    chosen = [metadata.row_group(group) for group in groups]
    longest = max((each.total_byte_size // max(1, each.num_rows) for each in chosen), default=0)
    return max(1, min(MOST_ROWS, HELD // max(1, longest)))


def _open(path: Path) -> Any:  # pyarrow comes without types
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        return ParquetFile(path, memory_map=True, pre_buffer=False)
    except (ArrowException, OSError, ValueError) as error:
        raise BrokenFileError("broken_parquet", str(error)) from error


def _check_column(text_field: str, names: list[str]) -> None:
    if text_field not in names:
        there = ", ".join(map(str, names))
        raise BrokenFileError(
            "no_text_column", f'no column "{text_field}" (clean.text_field) among {there}'
        )
