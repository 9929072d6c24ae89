"""Read raw files as documents: text, JSON Lines, CSV, Parquet; plain, gzipped or in a zip archive.

``plan`` divides raw files into units of work, small files together and large files in ranges. The
units depend only on the files, not on the number of workers, so the order of documents is always
the same. ``read_piece`` then reads one file or range.
"""

import codecs
import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import decoding, streams
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.streams import MAX_BLOCK, MAX_LINE, BrokenFileError, open_stream
from atlas.corpora.local_files import FORMATS, GZIP_SUFFIX, Format, format_of
from atlas.corpora.manifest import RawFile
from atlas.pipeline.parallel import in_order

MIN_UNIT, MAX_UNIT = 2 << 20, 256 << 20  # bytes
MIN_RANGE = 8 << 20  # bytes; smaller files are not divided
TARGET_UNITS = 64  # enough to keep many workers busy
MAX_UNITS = 4096  # for large corpora, since each unit costs a few small files


@dataclass(frozen=True)
class Piece:
    """A raw file, a member of a zip archive, or a range of a file."""

    path: Path
    name: str  # prefix of the ids of its documents
    member: str | None = None  # name within a zip archive
    start: int = 0  # first byte (text, JSON Lines) or row group (Parquet)
    stop: int | None = None  # byte or row group to end before, None for the end
    first_line: int = 1  # number of the first line that starts in the range
    bytes: int = 0  # declared unpacked size

    @property
    def format(self) -> Format | None:
        """The file format, None if unknown."""
        return format_of(self.member or self.path.name)

    @property
    def packed(self) -> bool:
        """True for gzip files and members of archives."""
        return self.member is not None or self.path.name.lower().endswith(GZIP_SUFFIX)

    @property
    def whole(self) -> bool:
        """True for a file, False for a range of one."""
        return self.start == 0 and self.stop is None


@dataclass(frozen=True)
class Unit:
    """The pieces cleaned by one task."""

    number: int
    pieces: tuple[Piece, ...]


def plan(raw: Path, files: list[RawFile]) -> list[Unit]:
    """Divide the files of a manifest into units, in order."""
    total = sum(file.bytes for file in files)
    size = max(min(total // TARGET_UNITS, MIN_RANGE), total // MAX_UNITS)
    size = min(max(size, MIN_UNIT), MAX_UNIT)
    pieces = [piece for file in files for piece in _pieces(raw / file.name, file.name, size)]
    return _group(_number_lines(pieces), size)


def _pieces(path: Path, name: str, size: int) -> list[Piece]:
    whole = Piece(path, name, bytes=path.stat().st_size)
    step = max(size, MIN_RANGE)
    pieces = []
    with contextlib.suppress(BrokenFileError):  # read_piece reports it
        match whole.format:
            case "zip":
                pieces = [
                    Piece(path, f"{name}/{member}", member, bytes=unpacked)
                    for member, unpacked in streams.members(path)
                ]
            case "parquet":
                pieces = _row_groups(whole, step)
            case "jsonl" | "text" if not whole.packed:
                for start in range(0, whole.bytes, step):
                    stop = start + step if start + step < whole.bytes else None
                    length = min(step, whole.bytes - start)
                    pieces.append(replace(whole, start=start, stop=stop, bytes=length))
    return pieces or [whole]


def _row_groups(whole: Piece, size: int) -> list[Piece]:
    """Divide a Parquet file into ranges of row groups with about ``size`` unpacked bytes."""
    with _open_parquet(whole.path) as file:
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


def _number_lines(pieces: list[Piece]) -> list[Piece]:
    """Set the first line number of every range of a JSON Lines file."""
    ranges = [piece for piece in pieces if piece.format == "jsonl" and not piece.whole]
    counts = dict(zip(ranges, in_order(_lines_before_next, ranges, "count lines"), strict=True))
    numbered = []
    lines = 0
    for piece in pieces:
        # The line at the start of a range belongs to the range before.
        first_line = lines + 2 if piece.start and piece in counts else 1
        numbered.append(replace(piece, first_line=first_line))
        lines = counts.get(piece, 0) + (lines if piece.start else 0)
    return numbered


def _lines_before_next(piece: Piece) -> int:
    """Count the line ends up to the byte before the next range."""
    if piece.stop is None:
        return 0
    with open_stream(piece.path, None) as stream:
        return streams.count_lines(stream, max(piece.start - 1, 0), piece.stop - 1)


def _group(pieces: list[Piece], size: int) -> list[Unit]:
    units: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if not units or piece.bytes > room:
            units.append([])
            room = size
        units[-1].append(piece)
        room -= piece.bytes
    return [Unit(number, tuple(unit)) for number, unit in enumerate(units)]


WIDE = {"utf-16": 2, "utf-32": 4}  # bytes per code unit
SOURCE = "source"  # optional key or column
MAX_ROW = MAX_LINE  # characters, over all lines of the row
MAX_BATCH_ROWS = 256  # rows of a Parquet file held at once
MAX_BATCH_BYTES = 32 << 20  # of these rows, by their mean size
EXTRA_FIELDS = ""  # key of fields beyond the columns; no column has this name


@dataclass(frozen=True)
class Rejection:
    """A rejected document, with a short reason."""

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class UnreadableFile(Rejection):
    """A file that is damaged or not text; ``id`` is its name."""


Item = Document | Rejection


def read_piece(
    piece: Piece, text_field: str, separator: str | None, notes: Counter[str]
) -> Iterator[Item]:
    """Read a raw file or a range of one.

    A text file is one document, or several if it is very long or has separators. A line of JSON
    Lines and a row of a table are one document each, with its text under ``text_field``.
    ``notes`` counts guessed encodings (``guessed_cp1252``) and ``replaced_bytes``.
    """
    items: Iterator[Item] = iter(())
    item = None
    try:
        if piece.packed and piece.format is not None:
            streams.check_packed(piece.path, piece.member)
        match piece.format:
            case "text":
                items = _read_text(piece, separator, notes)
            case "jsonl":
                items = _read_jsonl(piece, text_field)
            case "csv":
                items = _read_csv(piece, text_field, notes)
            case "parquet" if piece.member is None:
                items = _read_parquet(piece, text_field)
            case "zip" if piece.member is None:
                streams.members(piece.path)  # raises again: plan() kept the archive whole
            case _:
                known = ", ".join(FORMATS)
                yield Rejection(piece.name, "unknown_kind", f"known are {known}, also as .gz")
                return
        for item in items:
            yield item
    except (NotTextError, BrokenFileError) as error:
        yield UnreadableFile(piece.name, error.reason, str(error))
        return
    if item is None and piece.whole:
        yield Rejection(piece.name, "empty")


def _read_text(piece: Piece, separator: str | None, notes: Counter[str]) -> Iterator[Item]:
    with open_stream(piece.path, piece.member) as stream:
        head = stream.read(decoding.SAMPLE)
    try:
        encoding = decoding.guess_encoding(head, whole=False).encoding
    except NotTextError:
        encoding = "utf-8"  # decided block by block
    width = WIDE.get(encoding[:6], 1)
    wide = width > 1
    if wide and piece.start:
        return  # the first range reads the whole file: code units can't be found from within
    stop = None if wide else piece.stop
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    with open_stream(piece.path, piece.member) as stream:
        mark = separator.encode() if separator and not wide else b""
        for offset, block in streams.read_blocks(stream, piece.start, stop, width, mark):
            identity = f"{piece.name}@{offset}" if offset else piece.name
            try:
                decoded = decoding.decode(block) if not wide or offset == 0 else None
            except NotTextError as error:
                if offset == 0:
                    raise
                yield Rejection(identity, "not_text", str(error))
                continue
            if decoded:
                notes[f"guessed_{decoded.encoding}"] += decoded.guessed
                notes["replaced_bytes"] += decoded.replaced
            text = decoded.text if decoded and not wide else decoder.decode(block)
            yield from _split(identity, piece.name, text, separator)


def _split(identity: str, source: str, text: str, separator: str | None) -> Iterator[Document]:
    if not separator:
        yield Document(identity, source, text)
        return
    for number, part in enumerate(text.split(separator), start=1):
        if part.strip():
            yield Document(f"{identity}#{number}", source, part.strip("\r\n"))


def _read_jsonl(piece: Piece, text_field: str) -> Iterator[Item]:
    first: Rejection | None = None
    found = piece.start > 0  # only the start of a file shows that it is not JSON Lines
    with open_stream(piece.path, piece.member) as stream:
        lines = streams.read_lines(stream, piece.start, piece.stop)
        for number, line in enumerate(lines, start=piece.first_line):
            if line is not None and not line.strip():
                continue
            result = _parse_line(line, f"{piece.name}:{number}", piece.name, text_field)
            if isinstance(result, Document):
                found = True
            elif not found:
                first = first or result
                if line is not None and line.strip() == b"[":
                    raise NotTextError(f"{result.id}: a JSON array over many lines, not JSON Lines")
            yield result
    if first and not found:
        raise NotTextError(f"no line is a document; {first.id}: {first.reason}, {first.detail}")


def _parse_line(line: bytes | None, identity: str, name: str, text_field: str) -> Item:
    if line is None:
        return Rejection(identity, "line_too_long", f"more than {MAX_LINE:,} bytes")
    try:
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError:  # json accepts lone surrogates and explains errors
            record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        return Rejection(identity, "not_utf8", str(error))
    except (ValueError, RecursionError) as error:
        return Rejection(identity, "not_json", str(error))
    if not isinstance(record, dict):
        return Rejection(identity, "no_text", f'needs an object with a string under "{text_field}"')
    return _document(record, identity, name, text_field)


def _document(record: dict[str, Any], identity: str, name: str, text_field: str) -> Item:
    text, source = record.get(text_field), record.get(SOURCE)
    if not isinstance(text, str):
        return Rejection(identity, "no_text", f'needs a string under "{text_field}"')
    if len(text) > MAX_BLOCK:
        return Rejection(identity, "text_too_long", f"more than {MAX_BLOCK:,} characters")
    return Document(identity, source if isinstance(source, str) and source else name, text)


def _read_csv(piece: Piece, text_field: str, notes: Counter[str]) -> Iterator[Item]:
    with open_stream(piece.path, piece.member) as stream:
        sample = decoding.encoding_sample(stream)
        guess = decoding.guess_encoding(sample, whole=False)
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
                lines.end_row(number)
                identity = f"{piece.name}:{number}"
                if EXTRA_FIELDS in row:
                    count = len(row[EXTRA_FIELDS])
                    detail = f"{count} more than the header has: is a quote missing?"
                    yield Rejection(identity, "too_many_fields", detail)
                else:
                    yield _document(row, identity, piece.name, text_field)
        except csv.Error as error:
            raise BrokenFileError("broken_csv", str(error)) from error
        finally:
            csv.field_size_limit(old_limit)
            text.detach()  # open_stream closes the stream


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
            self._notes["replaced_bytes"] += line.count(decoding.REPLACEMENT)
            if self._characters > MAX_ROW:
                raise csv.Error(f"a row of more than {MAX_ROW:,} characters")
            yield line
        self._ended = True

    def end_row(self, number: int) -> None:
        """Raise if the file ended in an open quote, which Python's reader silently accepts."""
        if self._ended and self._lines > 1 and self._quotes % 2:
            raise csv.Error(f"a quote in row {number} is never closed")
        self.start_row()


def _read_parquet(piece: Piece, text_field: str) -> Iterator[Item]:
    with _open_parquet(piece.path) as file:
        names = file.schema_arrow.names
        _check_column(text_field, names)
        groups = range(piece.start, file.num_row_groups if piece.stop is None else piece.stop)
        number = sum(file.metadata.row_group(group).num_rows for group in range(piece.start))
        present = [name for name in names if name in (text_field, SOURCE)]
        rows = _batch_rows(file.metadata, groups)
        for batch in file.iter_batches(rows, row_groups=groups, columns=present):
            for row in batch.to_pylist():
                number += 1
                yield _document(row, f"{piece.name}:{number}", piece.name, text_field)


def _batch_rows(metadata: Any, groups: range) -> int:
    chosen = [metadata.row_group(group) for group in groups]
    largest = max((each.total_byte_size // max(1, each.num_rows) for each in chosen), default=0)
    return max(1, min(MAX_BATCH_ROWS, MAX_BATCH_BYTES // max(1, largest)))


@contextlib.contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:  # pyarrow has no type hints
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        yield ParquetFile(path, memory_map=True, pre_buffer=False)
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise BrokenFileError("broken_parquet", str(error)) from error


def _check_column(text_field: str, names: list[str]) -> None:
    if text_field not in names:
        columns = ", ".join(map(str, names))
        detail = f'no column "{text_field}" (clean.text_field) among {columns}'
        raise BrokenFileError("no_text_column", detail)
