"""Raw files as units of work: small files together, large ones in ranges.

The units depend on the files alone, never on how many workers there are, so that the documents
come out in the same order however they are cleaned.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from atlas.cleaning.reading.blocks import count_lines
from atlas.cleaning.reading.streams import BrokenFileError, members, open_stream
from atlas.cleaning.reading.tables import row_groups
from atlas.corpora.formats import PACKED, Format, format_of
from atlas.corpora.manifest import RawFile
from atlas.parallel import in_order

SMALLEST_UNIT, LARGEST_UNIT = 2 << 20, 256 << 20  # bytes
SMALLEST_RANGE = 8 << 20  # bytes: smaller files are not divided
FEW_UNITS = 64  # aimed at, so that there is work for many
MOST_UNITS = 4096  # aimed at where units are large: each costs a few small files


@dataclass(frozen=True)
class Piece:
    """A raw file or a part of it.

    Attributes:
        path: of the file.
        name: what the ids of its documents begin with.
        member: which file of a zip archive, None for other files.
        start: first byte (of lines and texts) or row group (of Parquet).
        stop: the byte or row group to end before, None for the end.
        first_line: number of the first line that starts in it.
        bytes: how many it unpacks to, so far as the file says.
    """

    path: Path
    name: str
    member: str | None = None
    start: int = 0
    stop: int | None = None
    first_line: int = 1
    bytes: int = 0

    @property
    def format(self) -> Format | None:
        """How it is read, None for a kind that is not known."""
        return format_of(self.member or self.path.name)

    @property
    def packed(self) -> bool:
        """Whether it has to be unpacked."""
        return self.member is not None or self.path.name.lower().endswith(PACKED)

    @property
    def whole(self) -> bool:
        """Whether it is a file and not a range of one."""
        return self.start == 0 and self.stop is None


@dataclass(frozen=True)
class Unit:
    """What one task cleans."""

    number: int
    pieces: tuple[Piece, ...]


def plan(raw: Path, files: list[RawFile]) -> list[Unit]:
    """The units of a folder of raw files, in the order of its manifest."""
    total = sum(file.bytes for file in files)
    size = max(min(total // FEW_UNITS, SMALLEST_RANGE), total // MOST_UNITS)
    size = min(max(size, SMALLEST_UNIT), LARGEST_UNIT)
    pieces = [piece for file in files for piece in _pieces(raw / file.name, file.name, size)]
    return _grouped(_with_line_numbers(pieces), size)


def _pieces(path: Path, name: str, size: int) -> Iterator[Piece]:
    whole = Piece(path, name, bytes=path.stat().st_size)
    step = max(size, SMALLEST_RANGE)
    match whole.format:
        case "zip":
            yield from _members(whole) or [whole]
        case "parquet":
            for start, stop, unpacked in row_groups(path, step) or [(0, None, whole.bytes)]:
                yield replace(whole, start=start, stop=stop, bytes=unpacked)
        case "jsonl" | "text" if not whole.packed:
            starts = range(0, max(whole.bytes, 1), step)
            for start in starts:
                stop = start + step if start + step in starts else None
                yield replace(whole, start=start, stop=stop, bytes=min(step, whole.bytes - start))
        case _:
            yield whole


def _members(archive: Piece) -> list[Piece]:
    try:
        return [
            Piece(archive.path, f"{archive.name}/{each.name}", each.name, bytes=each.bytes)
            for each in members(archive.path)
        ]
    except BrokenFileError:
        return []  # the one who reads it will say so


def _with_line_numbers(pieces: list[Piece]) -> list[Piece]:
    """Ranges of lines learn the number of their first line."""
    ranges = [piece for piece in pieces if piece.format == "jsonl" and not piece.whole]
    counts = dict(zip(ranges, in_order(_lines_before_next, ranges, "count lines"), strict=True))
    numbered = []
    lines = 0
    for piece in pieces:
        if piece in counts:
            lines = 0 if piece.start == 0 else lines
            # The line that a range begins in is that of the range before.
            numbered.append(replace(piece, first_line=lines + 2 if piece.start else 1))
            lines += counts[piece]
        else:
            numbered.append(piece)
    return numbered


def _lines_before_next(piece: Piece) -> int:
    """Line ends up to the byte before the one at which the next range starts."""
    if piece.stop is None:
        return 0
    with open_stream(piece.path, None) as stream:
        return count_lines(stream, max(piece.start - 1, 0), piece.stop - 1)


def _grouped(pieces: list[Piece], size: int) -> list[Unit]:
    units: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if not units or piece.bytes > room:
            units.append([])
            room = size
        units[-1].append(piece)
        room -= piece.bytes
    return [Unit(number, tuple(unit)) for number, unit in enumerate(units)]
