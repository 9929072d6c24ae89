"""Read the records of JSON files: JSON Lines, arrays, and objects in a row.

The first record shows how a file is laid out, whatever its suffix. Only JSON Lines are read in
ranges; all ranges of a file are decoded alike.
"""

import contextlib
import functools
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, BinaryIO, TextIO

import orjson

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import decoding, records, streams
from atlas.cleaning.reading.containers import BrokenFileError, open_stream
from atlas.cleaning.reading.decoding import Guess, NotTextError
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.params.schema import CleanParams

UTF_8 = ("utf-8", "utf-8-sig")
FIRST_RECORDS = 1000  # searched for the keys of a template, and lines for the first record
CHUNK = 1 << 16  # characters
BLANK = re.compile("[\\s\x1e\ufeff]*")  # with the separator of JSON text sequences
LONGEST_TOKEN = 16  # characters of a literal or an escape, with room
IN_VALUE, IN_STRING = re.compile(r'["{}\[\],]'), re.compile(r'"|\\[\s\S]')
DATASET_FILES = {  # of Hugging Face's datasets, next to the tables, by a key that they have
    "dataset_info.json": "features",
    "state.json": "_fingerprint",
    "dataset_dict.json": "splits",
}

Records = Iterator[tuple[str, Any]]  # the id, and the value or a rejection


@dataclass(frozen=True)
class Layout:
    """How the records of a file are arranged."""

    guess: Guess
    lines: bool  # a record per line; otherwise an array, an object, or objects in a row
    kind: type  # of the first record: dict, str or list

    @property
    def divisible(self) -> bool:
        """True if the file can be read in ranges: lines are found before they are decoded."""
        return self.lines and "\n".encode(self.guess.encoding) == b"\n"


class TooLongError(Exception):
    """A value is longer than MAX_LINE characters."""


def read_jsonl(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read the records of a JSON file; of JSON Lines, those whose lines start in a range."""
    layout = _layout(*_file(piece), clean.encoding)
    problem = _template_problem(*_file(piece), clean) if records.only_templates(clean) else None
    if piece.start and (problem or not layout.divisible):
        return  # the first range reports the problem, or reads the whole file
    if problem:
        raise BrokenFileError("no_text_key", problem)
    if layout.guess.guessed:
        notes.guess(piece.name, layout.guess.encoding)
    kind = layout.kind if layout.lines else None
    found = piece.start > 0  # only the start of a file shows that it holds no documents
    first: Rejection | None = None
    lacking: list[Any] = []
    key = records.plain_key(clean)
    for identity, record in _records(piece, layout, clean, notes):
        if type(record) is dict and (
            document := records.plain_document(record, key, identity, piece.name)
        ):
            yield document  # the usual case, without detours
            found = True
            continue
        kind = kind or type(record)
        if isinstance(record, dict) and not _is_usual(record, piece, clean):
            record = Rejection(identity, "no_text", "a list of texts, unlike the first record")
        items = _documents(record, identity, piece.name, kind, clean, notes)
        yield from items
        if not found:
            found = any(isinstance(item, Document) for item in items)
            first = first or next((item for item in items if isinstance(item, Rejection)), None)
            if isinstance(record, dict) and len(lacking) < FIRST_RECORDS:
                lacking.append(record)
    if first and not found and first.reason != "metadata":
        _raise_no_documents(first, lacking, clean)


def _file(piece: Piece) -> tuple[Piece, int]:
    """Return the file of a range, and when it changed."""
    file = replace(piece, start=0, stop=None, first_line=1, size=0)
    return file, piece.path.stat().st_mtime_ns


def _raise_no_documents(first: Rejection, lacking: list[Any], clean: CleanParams) -> None:
    if lacking and records.find_text(lacking[0], clean) is records.MISSING:
        raise BrokenFileError("no_text_key", records.missing_field(lacking, clean))
    raise NotTextError(f"no record is a document; {first.id}: {first.reason}, {first.detail}")


@functools.lru_cache(maxsize=2)
def _layout(file: Piece, _changed: int, encoding: str | None) -> Layout:
    """Find the layout of a file by its first records."""
    if encoding:
        guess = Guess(encoding, guessed=False)
    else:
        with open_stream(file) as stream:
            guess = decoding.guess_encoding(stream.read(decoding.SAMPLE), whole=False)
    layout = Layout(guess, lines=True, kind=dict)
    with open_stream(file) as stream:
        pairs = islice(_line_records(stream, file, layout, Notes()), FIRST_RECORDS)
        values = (value for _, value in pairs)
        first, second = next(values, None), next(values, None)
        valid = (each for each in chain([first, second], values) if isinstance(each, dict | str))
        if isinstance(first, Rejection) and first.reason == "line_too_long":
            in_lines = any(True for _ in valid)
        elif isinstance(first, Rejection):
            in_lines = not _starts_with_value(file, guess)
        else:
            in_lines = second is not None or not isinstance(first, dict | list)
        kind = type(first if isinstance(first, list) else next(valid, None))
    return Layout(guess, in_lines, kind if in_lines and kind in (str, list) else dict)


def _starts_with_value(file: Piece, guess: Guess) -> bool:
    """Return True if a file whose first line is not JSON starts with an array or an object."""
    with _open_values(file, guess) as values:
        try:
            return values.peek() == "[" or (values.peek() == "{" and bool(values.value()))
        except TooLongError:
            return True
        except ValueError:
            return False


@functools.lru_cache(maxsize=2)
def _template_problem(file: Piece, _changed: int, clean: CleanParams) -> str | None:
    """Explain which field of a template the first records lack."""
    pairs = islice(
        _records(file, _layout(file, _changed, clean.encoding), clean, Notes()), FIRST_RECORDS
    )
    return records.template_problem([each for _, each in pairs if isinstance(each, dict)], clean)


def _is_usual(record: dict[str, Any], piece: Piece, clean: CleanParams) -> bool:
    """Return False for a list of texts in a file whose first record has one text."""
    text = records.find_text(record, clean)
    return not isinstance(text, list) or _starts_with_list(*_file(piece), clean)


@functools.lru_cache(maxsize=2)
def _starts_with_list(file: Piece, changed: int, clean: CleanParams) -> bool:
    for _, record in _records(file, _layout(file, changed, clean.encoding), clean, Notes()):
        text = records.find_text(record, clean) if isinstance(record, dict) else None
        if isinstance(text, str | list):
            return isinstance(text, list)
    return False


@functools.lru_cache(maxsize=2)
def _guess_from_sample(file: Piece, _changed: int) -> Guess:
    with open_stream(file) as stream:
        return decoding.guess_encoding(decoding.encoding_sample(stream), whole=False)


def _records(piece: Piece, layout: Layout, clean: CleanParams, notes: Notes) -> Records:
    if layout.lines:
        with open_stream(piece) as stream:
            yield from _line_records(stream, piece, layout, notes)
        return
    number = 0
    guess = layout.guess if clean.encoding else _guess_from_sample(*_file(piece))
    with _open_values(piece, guess) as values:
        try:
            for value in _top_values(values, piece.name, clean):
                number += 1
                yield f"{piece.name}:{number}", value
        except (ValueError, RecursionError) as error:
            detail = f"after record {number}: {error}"
            raise BrokenFileError("broken_json", detail) from None
        finally:
            notes.counts["replaced_bytes"] += values.replaced


def _line_records(stream: BinaryIO, piece: Piece, layout: Layout, notes: Notes) -> Records:
    """Parse the lines that start in a range."""
    encoding = layout.guess.encoding
    lines: Iterator[bytes | str | None]
    if layout.divisible:
        lines = streams.read_lines(stream, piece.start, piece.stop)
    else:
        lines = _text_lines(stream, encoding)
    utf_8 = encoding in UTF_8
    for number, line in enumerate(lines, start=piece.first_line):
        identity = f"{piece.name}:{number}"
        if utf_8 and line:
            try:
                yield identity, orjson.loads(line)
                continue
            except orjson.JSONDecodeError:  # json accepts lone surrogates and explains errors
                pass
        if line is None:
            detail = f"more than {streams.MAX_LINE:,} bytes"
            yield identity, Rejection(identity, "line_too_long", detail)
        elif line.strip():
            yield identity, _parse(line, identity, piece, encoding, notes)


def _parse(line: bytes | str, identity: str, piece: Piece, encoding: str, notes: Notes) -> Any:
    if isinstance(line, str):
        text = line
    else:
        try:
            text = line.decode("utf-8-sig" if encoding in UTF_8 else encoding)
        except UnicodeDecodeError as error:
            if encoding in UTF_8:  # perhaps only the first lines, which are ASCII
                guess = _guess_from_sample(*_file(piece))
                if guess.encoding in UTF_8:
                    return Rejection(identity, "not_utf8", str(error))
                encoding = guess.encoding
                notes.guess(piece.name, encoding)
            text = line.decode(encoding, errors="replace")
            notes.counts["replaced_bytes"] += text.count(decoding.REPLACEMENT)
    try:
        return json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:
        return Rejection(identity, "not_json", str(error))


def _text_lines(stream: BinaryIO, encoding: str) -> Iterator[str | None]:
    """Read lines of an encoding whose line ends are not a single byte; None if one is too long."""
    text = io.TextIOWrapper(stream, encoding, errors="replace", newline="\n")
    while line := text.readline(streams.MAX_LINE + 1):
        if len(line) <= streams.MAX_LINE:
            yield line
            continue
        yield None
        while line and not line.endswith("\n"):
            line = text.readline(streams.MAX_LINE)


def _top_values(values: "_Values", name: str, clean: CleanParams) -> Iterator[Any]:
    """Yield the records of a file: an array's items, objects in a row, or an object's lists."""
    first = True
    while character := values.peek():
        if character == "[":
            yield from values.items()
        else:
            try:
                value = values.value()
            except TooLongError:
                yield from _lists_of_long_object(values)
            else:
                alone = first and isinstance(value, dict) and not values.peek()
                yield from _inner_records(value, name, clean) if alone else (value,)
        first = False
        values.take(",")


def _inner_records(value: dict[str, Any], name: str, clean: CleanParams) -> list[Any]:
    """Return the records of the only object in a file: itself, or what its lists hold."""
    is_record = records.is_record(value, clean)
    if is_record and not isinstance(records.find_text(value, clean), list | dict):
        return [value]
    if DATASET_FILES.get(name.rpartition("/")[2]) in value:
        return [Rejection(name, "metadata", "describes a dataset of Hugging Face")]
    inner = list(value.values())
    if inner and all(isinstance(each, dict) and records.is_record(each, clean) for each in inner):
        return inner  # records by name
    if rows := _rows_of_columns(value):
        return rows
    lists = [each for each in inner if isinstance(each, list) and each]
    for kind in () if is_record else (dict, str, list):
        chosen = [each for each in lists if isinstance(each[0], kind)]
        if chosen and (kind is dict or len(chosen) == 1):
            return list(chain.from_iterable(chosen))
    return [value]


def _rows_of_columns(value: dict[str, Any]) -> list[Any] | None:
    """Return the rows of an object that holds a table by columns, as pandas and datasets write."""
    if value.keys() <= {"columns", "index", "data"} and value.keys() >= {"columns", "data"}:
        return [dict(zip(value["columns"], row, strict=False)) for row in value["data"]]
    columns = list(value.values())
    if len(columns) < 2:
        return None
    if all(isinstance(column, dict) for column in columns):
        same = all(column.keys() == columns[0].keys() for column in columns)
        simple = not any(isinstance(each, dict | list) for each in columns[0].values())
        columns = [list(column.values()) for column in columns] if same and simple else []
    lengths = {len(column) if isinstance(column, list) else 0 for column in columns}
    if len(lengths) != 1 or 0 in lengths:
        return None
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def _lists_of_long_object(values: "_Values") -> Iterator[Any]:
    """Yield the items of the lists of objects in an object that is too long to hold."""
    values.take("{")
    while not values.take("}"):
        values.value()
        values.expect(":")
        if values.peek() == "[":
            items = values.items()
            yield from (item for item in items if isinstance(item, dict | Rejection))
        else:
            values.value_or_rejection()
        values.take(",")


@contextlib.contextmanager
def _open_values(piece: Piece, guess: Guess) -> Iterator["_Values"]:
    with open_stream(piece) as stream:
        yield _Values(io.TextIOWrapper(stream, guess.encoding, errors="replace", newline="\n"))


class _Values:
    """JSON values in a text, one after the other; memory holds one value."""

    def __init__(self, text: TextIO) -> None:
        self.replaced = 0  # invalid sequences of bytes
        self._text = text
        self._buffer = ""
        self._position = 0
        self._decoder = json.JSONDecoder(strict=False)  # line ends within strings stay

    def _more(self) -> bool:
        """Read as much again as is held; return False at the end."""
        rest = self._buffer[self._position :]
        new = self._text.read(max(CHUNK, len(rest)))
        self.replaced += new.count(decoding.REPLACEMENT)
        self._buffer, self._position = rest + new, 0
        return bool(new)

    def peek(self) -> str:
        """Return the next character that is not blank, "" at the end."""
        while True:
            match = BLANK.match(self._buffer, self._position)
            self._position = match.end() if match else self._position
            if self._position < len(self._buffer):
                return self._buffer[self._position]
            if not self._more():
                return ""

    def take(self, character: str) -> bool:
        """Skip a character if it is next."""
        found = self.peek() == character
        self._position += found
        return found

    def expect(self, character: str) -> None:
        """Skip a character that must be next."""
        if not self.take(character):
            found = self.peek()
            raise ValueError(f"{character!r} expected, not {found!r}" if found else "cut off")

    def value(self) -> Any:
        """Parse the next value."""
        if not self.peek():
            raise ValueError("cut off")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                # More text doesn't help if the error is well before the end of the buffer.
                held = len(self._buffer) - self._position
                unfinished = error.msg.startswith("Unterminated")
                if error.pos < len(self._buffer) - LONGEST_TOKEN and not unfinished:
                    raise ValueError(error.msg) from None
                if held > streams.MAX_LINE:
                    raise TooLongError from None
                if not self._more():
                    raise ValueError(f"{error.msg} where the file ends: is it cut off?") from None
            else:
                length = end - self._position
                number = self._buffer[end - 1] not in ']}"'
                near_end = end >= len(self._buffer) - LONGEST_TOKEN
                if not (number and near_end and self._more()):  # a number could go on
                    self._position += length
                    return value

    def items(self) -> Iterator[Any]:
        """Yield the items of an array; a rejection for one that is too long."""
        self.expect("[")
        while not self.take("]"):
            yield self.value_or_rejection()
            if self.peek() != "]":
                self.expect(",")

    def value_or_rejection(self) -> Any:
        """Parse the next value, or skip it and return a rejection if it is too long."""
        try:
            return self.value()
        except TooLongError:
            self._skip()
            return Rejection("", "record_too_long", f"more than {streams.MAX_LINE:,} characters")

    def _skip(self) -> None:
        depth, quoted = 0, False
        while True:
            match = (IN_STRING if quoted else IN_VALUE).search(self._buffer, self._position)
            if not match:
                self._position = len(self._buffer) - self._buffer.endswith("\\")
                if not self._more():
                    raise ValueError("cut off")
                continue
            self._position = match.end()
            mark = match[0]
            if mark == '"':
                quoted = not quoted
            elif mark in "[{":
                depth += 1
            elif mark in "]}" and depth:
                depth -= 1
            elif mark in "]},":
                if depth:
                    continue
                self._position -= 1
                return
            if not depth and not quoted and mark in ']}"':
                return


def _documents(
    record: Any, identity: str, name: str, kind: type, clean: CleanParams, notes: Notes
) -> list[Item]:
    """Convert a record, an object or of the same type as the first record of the file."""
    if isinstance(record, dict):
        return records.record_documents(record, identity, name, clean, notes.counts)
    if isinstance(record, Rejection):
        return [replace(record, id=identity)]
    if isinstance(record, str) and kind is str:
        return records.text_documents(record, identity, name)
    if isinstance(record, list) and kind is list:
        if records.is_conversation(record):
            row = {"messages": record}
        elif record and all(isinstance(each, dict) for each in record):
            parts = enumerate(record, start=1)
            inner = (
                records.record_documents(each, f"{identity}#{n}", name, clean, notes.counts)
                for n, each in parts
            )
            return list(chain.from_iterable(inner))
        else:  # a row of a table without a header
            row = {str(number): value for number, value in enumerate(record, start=1)}
        return records.record_documents(row, identity, name, clean, notes.counts)
    return [Rejection(identity, "no_text", f"holds {records.kind_of(record)}, not an object")]
