"""Read the rows of CSV and other tables of delimited text as documents."""

import csv
import io
from collections.abc import Iterator

from atlas.cleaning.reading import decoding
from atlas.cleaning.reading.containers import BrokenFileError, open_stream
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.records import (
    is_record,
    missing_field,
    record_documents,
    template_problem,
)
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
        if clean.encoding:
            guess = decoding.Guess(clean.encoding, guessed=False)
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
                _check_columns(list(rows.fieldnames), clean)
            lines.start_row()
            for number, row in enumerate(rows, start=2):
                lines.end_row(number)
                identity = f"{piece.name}:{number}"
                if EXTRA_FIELDS in row:
                    count = len(row[EXTRA_FIELDS])
                    detail = f"{count} more than the header has: is a quote missing?"
                    yield Rejection(identity, "too_many_fields", detail)
                else:
                    yield from record_documents(row, identity, piece.name, clean, notes.counts)
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


def _check_columns(names: list[str], clean: CleanParams) -> None:
    columns = dict.fromkeys(names, "...")
    problem = template_problem([columns], clean, "column")
    if problem or not is_record(columns, clean):
        raise BrokenFileError(
            "no_text_column", problem or missing_field([columns], clean, "column")
        )
