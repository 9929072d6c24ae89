"""Read raw files of every format as documents.

``plan`` divides raw files into units of work, small files together and large files in ranges. The
units depend only on the files, not on the number of workers, so the order of documents is always
the same. ``read_piece`` then reads one file or range.
"""

import contextlib
import functools
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from atlas.cleaning.reading import streams
from atlas.cleaning.reading.columnar import read_arrow, read_parquet, row_groups
from atlas.cleaning.reading.containers import (
    BrokenFileError,
    Content,
    Member,
    archive_members,
    as_broken_file,
    check_tar,
    inspect,
    open_seekable,
    open_stream,
    packed_bytes,
    tar_members,
    zip_members,
)
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.json_files import read_jsonl
from atlas.cleaning.reading.mail import read_mail, read_mbox
from atlas.cleaning.reading.markup import read_html, read_notebook, read_subtitles, read_xml
from atlas.cleaning.reading.office import read_docx, read_epub, read_odt, read_pdf
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection, UnreadableFile
from atlas.cleaning.reading.tables import read_csv
from atlas.cleaning.reading.texts import read_text
from atlas.cleaning.reading.wikis import read_mediawiki, read_wikiextractor
from atlas.corpora.formats import (
    HEAD,
    NAMES,
    Detected,
    Format,
    compression_of,
    detect,
    format_of,
    format_of_zip,
    split_suffixes,
)
from atlas.corpora.manifest import PACKS, RawFile, read_pack
from atlas.errors import one_line
from atlas.params.schema import CleanParams
from atlas.pipeline.parallel import in_order

MIN_UNIT, MAX_UNIT = 2 << 20, 256 << 20  # bytes
MIN_RANGE = 8 << 20  # bytes; smaller files are not divided
TARGET_UNITS = 64  # enough to keep many workers busy
MAX_UNITS = 4096  # for large corpora, since each unit costs a few small files
MAX_DEPTH = 2  # archives around a file: an archive in an archive is read

Reader = Callable[[Piece, CleanParams, Notes], Iterator[Item]]
READERS: dict[Format, Reader] = {
    "text": read_text,
    "json": read_jsonl,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "html": read_html,
    "xml": read_xml,
    "notebook": read_notebook,
    "subtitles": read_subtitles,
    "mediawiki": read_mediawiki,
    "wikiextractor": read_wikiextractor,
    "mail": read_mail,
    "mbox": read_mbox,
    "epub": read_epub,
    "docx": read_docx,
    "odt": read_odt,
    "pdf": read_pdf,
}
# Read as themselves even if their start has too many control characters.
LENIENT: tuple[Format, ...] = ("text", "json", "jsonl", "csv")
TEXTUAL: tuple[Format, ...] = (*LENIENT, "html", "xml", "subtitles", "mail", "mbox", "notebook")


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
    pieces = [piece for file in files for piece in _pieces(raw, file, size)]
    return _group(_number_lines(pieces), size)


def _pieces(raw: Path, file: RawFile, size: int) -> list[Piece]:
    path, name = raw / file.name, file.name
    if file.packed:
        return [Piece(path, name.partition(PACKS)[0], size=file.bytes, is_pack=True)]
    whole = Piece(path, name, size=file.bytes)
    if whole.size < MIN_RANGE:
        return [whole]
    step = max(size, MIN_RANGE)
    pieces = []
    with contextlib.suppress(BrokenFileError):  # read_piece reports it
        content = inspect(whole, to_end=False)
        if content.layers:
            return [whole]
        match detect(name, content.head).format:
            case "zip":
                members = archive_members(path)
                if format_of_zip([member.name for member in members], None).format == "zip":
                    pieces = [
                        Piece(path, f"{name}/{member.name}", member.name, size=member.size)
                        for member in members
                    ]
            case "parquet":
                pieces = row_groups(replace(whole, format="parquet"), step)
            case "jsonl" | "text" as kind:
                for start in range(0, whole.size, step):
                    stop = start + step if start + step < whole.size else None
                    length = min(step, whole.size - start)
                    part = replace(whole, start=start, stop=stop, size=length, format=kind)
                    pieces.append(part)
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
        numbered.append(replace(piece, first_line=first_line) if first_line > 1 else piece)
        lines = counts.get(piece, 0) + (lines if piece.start else 0)
    return numbered


def _lines_before_next(piece: Piece) -> int:
    """Count the line ends up to the byte before the next range."""
    if piece.stop is None:
        return 0
    with open_stream(piece) as stream:
        return streams.count_lines(stream, max(piece.start - 1, 0), piece.stop - 1)


def _group(pieces: list[Piece], size: int) -> list[Unit]:
    units: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if not units or piece.size > room:
            units.append([])
            room = size
        units[-1].append(piece)
        room -= piece.size
    return [Unit(number, tuple(unit)) for number, unit in enumerate(units)]


def read_piece(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a raw file or a range of one.

    A text file is one document, or several if it is very long or has separators. A line of JSON
    Lines and a row of a table are one document each, with its text under ``clean.text_field``.
    ``notes`` receives what the user should know.
    """
    item = None
    try:
        for item in _items(piece, clean, notes):
            yield item
    except NotTextError as error:
        named = format_of(piece.name) is not None
        kind = UnreadableFile if named else Rejection
        yield kind(piece.name, error.reason, one_line(error))
        return
    except BrokenFileError as error:
        yield UnreadableFile(piece.name, error.reason, one_line(error))
        return
    if item is None and piece.whole:
        yield Rejection(piece.name, "empty")


def _items(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Detect the format of a piece and read it."""
    if piece.is_pack:
        yield from _read_pack(piece, clean, notes)
        return
    if piece.format:  # detected by plan()
        yield from READERS[piece.format](piece, clean, notes)
        return
    content = Content(piece.content, []) if piece.content is not None else inspect(piece)
    if not content.head:
        return
    if len(content.head) < HEAD:  # the whole file: don't open it again
        piece = replace(piece, content=content.head)
    detected = detect(piece.name, content.head)
    if detected.format == "zip":
        yield from _read_zip(piece, clean, notes)
        return
    _warn_of_mismatch(piece, content, detected, notes)
    kind = detected.format or _format_of_binary(piece, content, detected.expected)
    if kind is None or kind == "unsupported":
        yield _passed_over(piece, detected, notes)
    elif kind == "tar":
        check_tar(piece)
        yield from _read_archive(piece, tar_members(piece), clean, notes)
    else:
        yield from READERS[kind](piece, clean, notes)


def _passed_over(piece: Piece, detected: Detected, notes: Notes) -> Rejection:
    detail = detected.detail or "neither text nor of a known format"
    notes.warn(f"{piece.name}: not read, {detail}")
    return Rejection(piece.name, "unknown_kind", detail)


def _format_of_binary(piece: Piece, content: Content, expected: Format | None) -> Format | None:
    """Choose the reader of a file without a known signature that does not look like text."""
    missing = [layer for layer in split_suffixes(piece.name)[1] if layer not in content.layers]
    if missing:
        raise BrokenFileError(
            f"broken_{missing[0]}", f"its first bytes are not those of {missing[0]}"
        )
    if expected is None:
        return None
    if expected in TEXTUAL:
        return expected if expected in LENIENT else "text"
    detail = f"its first bytes are not those of {NAMES[expected]}"
    raise BrokenFileError(f"broken_{expected}", detail)


def _warn_of_mismatch(piece: Piece, content: Content, found: Detected, notes: Notes) -> None:
    """Note that a file is not what its suffix says."""
    layers = split_suffixes(piece.name)[1]
    if found.format is None or found.format == "unsupported" or piece.start:
        return
    read_as = NAMES[found.format]
    if missing := [layer for layer in layers if layer not in content.layers]:
        notes.warn(f"{piece.name}: not compressed with {missing[0]}; read as {read_as}")
    elif content.layers and not layers and found.expected:
        packings = " and ".join(content.layers)
        notes.warn(f"{piece.name}: compressed with {packings}; read as {read_as}")
    elif found.mismatch and found.expected:
        notes.warn(f"{piece.name}: not {NAMES[found.expected]}; read as {read_as}")


def _read_zip(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a zip archive, or a document that is one."""
    with contextlib.ExitStack() as stack:
        with as_broken_file("broken_zip"):
            archive = stack.enter_context(
                zipfile.ZipFile(stack.enter_context(open_seekable(piece)))
            )
            detected = format_of_zip(archive.namelist(), format_of(piece.name))
            members = zip_members(archive, packed_bytes(piece))
        _warn_of_mismatch(piece, Content(b"", []), detected, notes)
        match detected.format:
            case "zip":
                yield from _read_archive(piece, members, clean, notes)
            case "docx" | "epub" | "odt" as kind:
                yield from READERS[kind](piece, clean, notes)
            case _:
                yield _passed_over(piece, detected, notes)


def _read_pack(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read small files that fetch packed as if they were files of their own."""
    for name, data in read_pack(piece.path):
        inner = Piece(piece.path, f"{piece.name}{name}", size=len(data), packed_bytes=len(data))
        if len(data) < HEAD and compression_of(data) is None:
            inner = replace(inner, content=data)
        else:
            inner = replace(inner, opener=functools.partial(io.BytesIO, data))
        yield from read_piece(inner, clean, notes)


def _read_archive(
    piece: Piece, members: Iterable[Member], clean: CleanParams, notes: Notes
) -> Iterator[Item]:
    """Read the members of an archive one after the other."""
    if piece.depth >= MAX_DEPTH:
        detail = f"an archive inside {MAX_DEPTH} archives; unpack it"
        yield Rejection(piece.name, "nested_archive", detail)
        return
    for member in members:
        name = f"{piece.name}/{member.name}"
        if member.refusal:
            yield Rejection(name, "not_a_file", member.refusal)
        else:
            inner = Piece(
                piece.path,
                name,
                size=member.size,
                opener=member.open,
                packed_bytes=packed_bytes(piece),
                depth=piece.depth + 1,
            )
            yield from read_piece(inner, clean, notes)
