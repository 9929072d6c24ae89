"""Read raw files as documents: text, JSON Lines, CSV, Parquet; plain, gzipped or in a zip archive.

``plan`` divides raw files into units of work, small files together and large files in ranges. The
units depend only on the files, not on the number of workers, so the order of documents is always
the same. ``read_piece`` then reads one file or range.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from atlas.cleaning.reading import streams
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection, UnreadableFile
from atlas.cleaning.reading.records import read_jsonl
from atlas.cleaning.reading.streams import BrokenFileError, open_stream
from atlas.cleaning.reading.tables import read_csv, read_parquet, row_groups
from atlas.cleaning.reading.texts import read_text
from atlas.corpora.local_files import FORMATS
from atlas.corpora.manifest import RawFile
from atlas.params.schema import CleanParams
from atlas.pipeline.parallel import in_order

MIN_UNIT, MAX_UNIT = 2 << 20, 256 << 20  # bytes
MIN_RANGE = 8 << 20  # bytes; smaller files are not divided
TARGET_UNITS = 64  # enough to keep many workers busy
MAX_UNITS = 4096  # for large corpora, since each unit costs a few small files


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
                pieces = row_groups(whole, step)
            case "jsonl" | "text" if not whole.packed:
                for start in range(0, whole.bytes, step):
                    stop = start + step if start + step < whole.bytes else None
                    length = min(step, whole.bytes - start)
                    pieces.append(replace(whole, start=start, stop=stop, bytes=length))
    return pieces or [whole]


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


def read_piece(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a raw file or a range of one.

    A text file is one document, or several if it is very long or has separators. A line of JSON
    Lines and a row of a table are one document each, with its text under ``clean.text_field``.
    ``notes`` receives what the user should know.
    """
    items: Iterator[Item] = iter(())
    item = None
    try:
        if piece.packed and piece.format is not None:
            streams.check_packed(piece.path, piece.member)
        match piece.format:
            case "text":
                items = read_text(piece, clean, notes)
            case "jsonl":
                items = read_jsonl(piece, clean)
            case "csv":
                items = read_csv(piece, clean, notes)
            case "parquet" if piece.member is None:
                items = read_parquet(piece, clean)
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
