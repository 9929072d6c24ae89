"""Raw files to documents: texts, JSON lines, CSV, Parquet; plain, gzipped or in a zip archive."""

import codecs
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.blocks import LONGEST_BLOCK, LONGEST_LINE, read_blocks, read_lines
from atlas.cleaning.reading.decoding import SAMPLE, NotTextError, decode, guess_encoding
from atlas.cleaning.reading.streams import BrokenFileError, check_packed, members, open_stream
from atlas.cleaning.reading.tables import SURPLUS, read_csv, read_parquet
from atlas.cleaning.reading.units import Piece
from atlas.corpora.formats import FORMATS

WIDE = {"utf-16": 2, "utf-32": 4}  # bytes of a unit
SOURCE = "source"


@dataclass(frozen=True)
class Rejection:
    """What was left out, and why."""

    id: str
    reason: str
    detail: str = ""


@dataclass(frozen=True)
class UnreadableFile:
    """A file that is not text, or ends too early; ``id`` is its name."""

    id: str
    reason: str
    detail: str


Item = Document | Rejection | UnreadableFile


@dataclass(frozen=True)
class Layout:
    """How documents lie in files.

    Attributes:
        text_field: the key or column that holds the text.
        separator: what divides a text file into documents; empty for nothing.
    """

    text_field: str
    separator: str = ""


def read_piece(piece: Piece, layout: Layout, noted: Counter[str]) -> Iterator[Item]:
    """Reads a raw file or a part of it.

    A text is one document, or several where it is very long; a line of JSONL and a row of a
    table is one.

    Args:
        piece: what to read.
        layout: how documents lie in it.
        noted: counts the texts of each encoding that had to be guessed, and bytes that mean
            nothing in theirs; added to.
    """
    found = False
    for item in _read(piece, layout, noted):
        found = True
        yield item
    if not found and piece.whole:
        yield Rejection(piece.name, "empty")


def _read(piece: Piece, layout: Layout, noted: Counter[str]) -> Iterator[Item]:
    try:
        if piece.packed and piece.format is not None:
            check_packed(piece.path, piece.member)
        match piece.format:
            case "text":
                yield from _read_text(piece, layout.separator, noted)
            case "jsonl":
                yield from _read_jsonl(piece, layout.text_field)
            case "csv":
                yield from _read_csv(piece, layout.text_field, noted)
            case "parquet" if piece.member is None:
                yield from _read_parquet(piece, layout.text_field)
            case "zip" if piece.member is None:
                members(piece.path)  # it was planned as one piece since this fails
            case _:
                known = ", ".join(FORMATS)
                yield Rejection(piece.name, "unknown_kind", f"known are {known}, also as .gz")
    except NotTextError as error:
        yield UnreadableFile(piece.name, "not_text", str(error))
    except BrokenFileError as error:
        yield UnreadableFile(piece.name, error.reason, str(error))


def _read_text(piece: Piece, separator: str, noted: Counter[str]) -> Iterator[Document | Rejection]:
    """A text as one document; a very long or divided one as several."""
    with open_stream(piece.path, piece.member) as stream:
        head = stream.read(SAMPLE)
    wide = _wide_encoding(head)
    if wide and piece.start:
        return  # the range at the start reads on to the end: units are not found from within
    width, stop = (WIDE[wide[:6]], None) if wide else (1, piece.stop)
    decoder = codecs.getincrementaldecoder(wide or "utf-8")(errors="replace")
    with open_stream(piece.path, piece.member) as stream:
        mark = separator.encode() if width == 1 else b""
        for offset, block in read_blocks(stream, piece.start, stop, width, mark):
            identity = f"{piece.name}@{offset}" if offset else piece.name
            try:
                decoded = decode(block) if not wide or offset == 0 else None
            except NotTextError as error:
                if offset == 0:
                    raise
                yield Rejection(identity, "not_text", str(error))
                continue
            if decoded:
                noted[f"guessed_{decoded.encoding}"] += decoded.guessed
                noted["replaced_bytes"] += decoded.replaced
            text = decoded.text if decoded and not wide else decoder.decode(block)
            yield from _divide(identity, piece.name, text, separator)


def _divide(identity: str, source: str, text: str, separator: str) -> Iterator[Document]:
    if not separator:
        yield Document(identity, source, text)
        return
    for number, part in enumerate(text.split(separator), start=1):
        if part.strip():
            yield Document(f"{identity}#{number}", source, part.strip("\r\n"))


def _wide_encoding(head: bytes) -> str | None:
    """The encoding of a text in units of two or four bytes, None for any other."""
    try:
        encoding = guess_encoding(head, whole=False).encoding
    except NotTextError:
        return None  # the whole of it decides
    return encoding if encoding.startswith(tuple(WIDE)) else None


def _read_jsonl(piece: Piece, text_field: str) -> Iterator[Document | Rejection]:
    """The documents of a file and a rejection for each line that is none.

    Raises:
        NotTextError: the file, or the range that it begins with, has lines but no document.
    """
    first: Rejection | None = None
    found = piece.start > 0  # whether the file is one of JSONL is seen at its beginning
    with open_stream(piece.path, piece.member) as stream:
        lines = read_lines(stream, piece.start, piece.stop)
        for number, line in enumerate(lines, start=piece.first_line):
            if line is not None and not line.strip():
                continue
            result = _parse_line(line, f"{piece.name}:{number}", piece.name, text_field)
            if isinstance(result, Document):
                found = True
            elif not found:
                first = first or result
                if line is not None and line.strip() == b"[":
                    raise NotTextError(f"{result.id}: a JSON array over many lines is no JSONL")
            yield result
    if first and not found:
        raise NotTextError(f"no line is a document; {first.id}: {first.reason}, {first.detail}")


def _parse_line(
    line: bytes | None, identity: str, name: str, text_field: str
) -> Document | Rejection:
    if line is None:
        return Rejection(identity, "line_too_long", f"more than {LONGEST_LINE:,} bytes")
    try:
        record = _parse(line)
    except UnicodeDecodeError as error:
        return Rejection(identity, "not_utf8", str(error))
    except (ValueError, RecursionError) as error:
        return Rejection(identity, "not_json", str(error))
    if not isinstance(record, dict):
        return Rejection(identity, "no_text", f'needs an object with a string under "{text_field}"')
    return _document(record, identity, name, text_field)


def _parse(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line.decode("utf-8-sig"))  # takes half surrogate pairs, says more


def _document(
    record: dict[str, Any], identity: str, name: str, text_field: str
) -> Document | Rejection:
    text, source = record.get(text_field), record.get(SOURCE)
    if not isinstance(text, str):
        return Rejection(identity, "no_text", f'needs a string under "{text_field}"')
    if len(text) > LONGEST_BLOCK:
        return Rejection(identity, "text_too_long", f"more than {LONGEST_BLOCK:,} characters")
    return Document(identity, source if isinstance(source, str) and source else name, text)


def _read_csv(piece: Piece, text_field: str, noted: Counter[str]) -> Iterator[Document | Rejection]:
    with open_stream(piece.path, piece.member) as stream:
        for number, row in read_csv(stream, text_field, noted):
            identity = f"{piece.name}:{number}"
            if SURPLUS in row:
                fields = f"{len(row[SURPLUS])} more than there are columns: is a quote missing?"
                yield Rejection(identity, "too_many_fields", fields)
            else:
                yield _document(row, identity, piece.name, text_field)


def _read_parquet(piece: Piece, text_field: str) -> Iterator[Document | Rejection]:
    rows = read_parquet(piece.path, piece.start, piece.stop, text_field, (SOURCE,))
    for number, row in rows:
        yield _document(row, f"{piece.name}:{number}", piece.name, text_field)
