"""Read records as documents: JSON Lines, and what a record of any format holds."""

import json
from collections.abc import Iterator
from typing import Any

import orjson

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import streams
from atlas.cleaning.reading.containers import open_stream
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.streams import MAX_BLOCK, MAX_LINE
from atlas.params.schema import CleanParams

SOURCE = "source"  # optional key or column


def read_jsonl(piece: Piece, clean: CleanParams, _: Notes) -> Iterator[Item]:
    """Read the lines of a JSON Lines file that start in a range."""
    first: Rejection | None = None
    found = piece.start > 0  # only the start of a file shows that it is not JSON Lines
    with open_stream(piece) as stream:
        lines = streams.read_lines(stream, piece.start, piece.stop)
        for number, line in enumerate(lines, start=piece.first_line):
            if line is not None and not line.strip():
                continue
            result = _parse_line(line, f"{piece.name}:{number}", piece.name, clean.text_field)
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
    return record_document(record, identity, name, text_field)


def record_document(record: dict[str, Any], identity: str, name: str, text_field: str) -> Item:
    """Convert a record to a document, or explain its rejection."""
    text, source = record.get(text_field), record.get(SOURCE)
    if not isinstance(text, str):
        return Rejection(identity, "no_text", f'needs a string under "{text_field}"')
    if len(text) > MAX_BLOCK:
        return Rejection(identity, "text_too_long", f"more than {MAX_BLOCK:,} characters")
    return Document(identity, source if isinstance(source, str) and source else name, text)
