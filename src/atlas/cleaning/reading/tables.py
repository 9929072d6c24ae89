"""Read the rows of tables of delimited text as documents: CSV, TSV and other dialects.

The dialect is chosen by parsing the start of a file with each candidate. Rows are then parsed
strictly: a quote that opens a field closes it before a delimiter or line end. A row that breaks
this, such as a text that merely starts with a quotation mark, is parsed alone, so that it does not
swallow the rows that follow.
"""

import contextlib
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TextIO

from atlas.cleaning.reading import decoding, records
from atlas.cleaning.reading.containers import BrokenFileError, open_stream
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.streams import MAX_LINE
from atlas.params.schema import CleanParams

MAX_ROW = MAX_LINE  # characters, over all lines of the row
TOO_LONG = "a line of more than MAX_ROW characters"  # stands for it; compared by identity
SAMPLE = 1 << 17  # characters that the dialect is chosen by
DELIMITERS = ",;\t|:"
ONE_COLUMN = "\x1f"  # a delimiter that is not in the table
SEP_LINE = re.compile(r'"?sep=(.)"?\s*$', re.I)
ESCAPED = re.compile(r"\\(.)", re.S)
NUMBER = re.compile(r"[-+$€£]?\d[\d.,:/\s%-]*(?:e[-+]?\d+)?", re.I)  # dates and times as well
MOSTLY = 0.9  # share of rows
MAX_BOUNDARIES = 20  # quotes next to delimiters in a row with quotes that are not doubled
FEW = 10  # lines that tell rows from a text of many lines
MAX_NAME = 40  # characters of a cell that can be a name
MAX_LABELS = 20  # distinct values in a column of labels
MIN_LABEL_ROWS = 10


@dataclass(frozen=True)
class Dialect:
    """How fields are divided and quoted."""

    delimiter: str
    quote: str | None  # None: quotes are text
    escape: bool = False  # a backslash before a quote or a delimiter
    spaced: bool = False  # a space after each delimiter

    def rows(self, lines: Iterable[str]) -> Iterator[list[str]]:
        """Parse lines strictly."""
        return csv.reader(
            map(self._keep_other_backslashes, lines) if self.escape else lines,
            delimiter=self.delimiter,
            quotechar=self.quote or '"',
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            escapechar="\\" if self.escape else None,
            skipinitialspace=self.spaced,
            strict=True,
        )

    def split(self, line: str) -> list[str]:
        """Split a line at its delimiters, quoted or not."""
        cells = line.rstrip("\r\n").split(self.delimiter)
        return [cell.removeprefix(" ") for cell in cells] if self.spaced else cells

    def _keep_other_backslashes(self, line: str) -> str:
        special = f"\\{self.quote or ''}{self.delimiter}\r\n"
        return ESCAPED.sub(lambda m: m[0] if m[1] in special else f"\\{m[0]}", line)


@dataclass(frozen=True)
class Column:
    """The values of a column in the first rows, to tell rows from lines of a text."""

    numbers: bool  # nearly all
    labels: frozenset[str] | None  # the values, if nearly all rows have one of a few
    blank: bool  # some are empty
    spaced: bool  # many start with a space

    @classmethod
    def from_values(cls, values: list[str]) -> "Column":
        """Describe values."""
        counts = Counter(values)
        repeated = frozenset(value for value, count in counts.items() if count > 1)
        filled = [value for value in values if value]
        numbers = sum(bool(NUMBER.fullmatch(value)) for value in filled)
        rows = sum(counts[value] for value in repeated)
        is_label = len(values) >= MIN_LABEL_ROWS and len(repeated) <= MAX_LABELS
        return cls(
            numbers=bool(filled) and numbers >= MOSTLY * len(filled),
            labels=repeated if is_label and rows >= MOSTLY * len(values) else None,
            blank="" in counts,
            spaced=sum(value.startswith(" ") for value in values) > (1 - MOSTLY) * len(values),
        )

    @property
    def typed(self) -> bool:
        """True if a line of a text is unlikely to agree with the column."""
        return self.numbers or self.labels is not None

    def agrees(self, value: str) -> bool:
        """Return True if a value could be in the column."""
        if not value:
            return self.blank or not self.typed
        if self.numbers:
            return bool(NUMBER.fullmatch(value))
        if self.labels is not None and value not in self.labels:
            return False
        return self.spaced or not value.startswith(" ")


@dataclass(frozen=True)
class Table:
    """The dialect and the columns of a table."""

    dialect: Dialect
    names: list[str] = field(default_factory=list)  # numbers if there is no header
    header: bool = False
    text: int | None = None  # index of the column with the text
    columns: list[Column] = field(default_factory=list)

    def agrees(self, cells: list[str]) -> bool:
        """Return True if the cells of a row agree with the columns."""
        pairs = zip(self.columns, cells, strict=False)
        return all(column.agrees(cell) for column, cell in pairs)

    @property
    def typed(self) -> bool:
        """True if some column tells rows from lines of a text."""
        return any(column.typed for column in self.columns)


def read_csv(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read the rows of a table of delimited text."""
    with open_stream(piece) as stream:
        if clean.encoding:
            guess = decoding.Guess(clean.encoding, guessed=False)
        else:
            guess = decoding.guess_encoding(decoding.encoding_sample(stream), whole=False)
        if guess.guessed:
            notes.guess(piece.name, guess.encoding)
        stream.seek(0)
        text = io.TextIOWrapper(stream, guess.encoding, errors="replace", newline="")
        old_limit = csv.field_size_limit(MAX_ROW + 1)  # global, so it is restored below
        try:
            lines = _Lines(text, notes)
            table = _table(lines.sample(), clean)
            key = records.plain_key(clean)
            for number, row in enumerate(_rows(lines, table, notes), start=1 + table.header):
                identity = f"{piece.name}:{number}"
                if isinstance(row, Rejection):
                    yield replace(row, id=identity)
                    continue
                record = dict(zip(table.names, row, strict=False))
                document = records.plain_document(record, key, identity, piece.name)
                if document:
                    yield document  # the usual case, without detours
                    continue
                yield from records.record_documents(
                    record, identity, piece.name, clean, notes.counts
                )
        finally:
            csv.field_size_limit(old_limit)
            text.detach()  # open_stream closes the stream


class _Lines:
    """Lines of a table; those of the current row are kept, and can be put back."""

    def __init__(self, text: TextIO, notes: Notes) -> None:
        self.taken: list[str] = []
        self._text = text
        self._notes = notes
        self._pending: list[str] = []  # in reverse
        self._characters = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._pending.pop() if self._pending else self._read():
            self.taken.append(line)
            self._characters += len(line)
            if line is TOO_LONG or self.too_many:
                raise csv.Error("too long")
            yield line

    @property
    def too_many(self) -> bool:
        """True if the lines of the row have more than MAX_ROW characters."""
        return self._characters > MAX_ROW and len(self.taken) > 1

    def _read(self) -> str:
        line = self._text.readline(MAX_ROW + 1)
        if not line.isascii() and decoding.REPLACEMENT in line:
            self._notes.counts["replaced_bytes"] += line.count(decoding.REPLACEMENT)
        if len(line) <= MAX_ROW:
            return line
        while line and not line.endswith(("\r", "\n")):
            line = self._text.readline(MAX_ROW)
        return TOO_LONG

    def start_row(self) -> None:
        """Forget the lines of the last row."""
        self.taken = []
        self._characters = 0

    def put_back(self, lines: list[str]) -> None:
        """Read these lines again, as those of a new row."""
        self._pending += reversed(lines)
        self.start_row()

    def skip_quoted(self, quote: str) -> None:
        """Skip the lines up to one that closes a quote."""
        while line := self._pending.pop() if self._pending else self._read():
            if line.count(quote) % 2:
                return

    def sample(self) -> tuple[list[str], bool]:
        """Return the lines at the start, and True if they are all."""
        lines: list[str] = []
        size = 0
        ended = False
        while size < SAMPLE and not ended:
            line = self._read()
            ended = not line
            lines.append(line)
            size += len(line)
        self.put_back(lines)
        return lines[:-1] if ended else lines, ended


def _table(sample: tuple[list[str], bool], clean: CleanParams) -> Table:
    """Choose the dialect of a table, and find its text; raise if it has none."""
    lines, ended = sample
    lines = [line for line in lines if line is not TOO_LONG]
    start = next((n for n, line in enumerate(lines) if line.strip()), None)
    if start is None:
        return Table(Dialect(",", '"'))
    separator = SEP_LINE.match(lines[start])
    lines = lines[start + bool(separator) :]
    parses = [_parse(lines, ended, each) for each in _dialects(lines, separator, clean)]
    parses = [parse for parse in parses if parse.rows]
    if not parses:
        return Table(Dialect(",", '"'))
    delimiters = dict.fromkeys(parse.dialect.delimiter for parse in parses)
    by_delimiter = [
        _best_quoting([parse for parse in parses if parse.dialect.delimiter == delimiter])
        for delimiter in delimiters
    ]
    best = min(by_delimiter, key=lambda parse: parse.rank(clean))
    header, *rows = best.rows
    header = [name.strip() for name in header]
    numbers = [str(number) for number in range(1, len(header) + 1)]
    named = _problem([dict.fromkeys(header, "...")], clean) is None
    if not named and _problem([dict.fromkeys(numbers, "...")], clean) is not None:
        raise BrokenFileError("no_text_column", _explain(header, rows, clean))
    names = header if named else numbers
    values = [row for row in (rows if named else best.rows) if len(row) == len(header)]
    key = records.plain_key(clean)
    text = names.index(key) if key in names else None
    columns = [Column.from_values(list(column)) for column in zip(*values, strict=True)]
    if text is not None and columns:  # any text can follow
        columns[text] = replace(columns[text], numbers=False, labels=None)
    return Table(best.dialect, names, named, text, columns)


@dataclass(frozen=True)
class _Parse:
    """The first rows of a table in one dialect."""

    dialect: Dialect
    rows: list[list[str]]
    bad: int  # rows that break the dialect, or have more or fewer fields than the first
    quoted: int  # rows with a quoted field that has quotes in it

    def rank(self, clean: CleanParams) -> tuple[bool, bool, bool, float, int]:
        """Return a key that sorts the better delimiter first."""
        fields = len(self.rows[0])
        share = self.bad / (len(self.rows) + self.bad)
        named = _problem([{name.strip(): "..." for name in self.rows[0]}], clean) is None
        return not named, share > 0.5, fields == 1, round(share, 1), -fields


def _dialects(
    lines: list[str], separator: re.Match[str] | None, clean: CleanParams
) -> Iterator[Dialect]:
    """Yield the dialects that a table could have, the usual ones first."""
    header, text = lines[0] if lines else "", "".join(lines)
    delimiters = [separator[1]] if separator else _delimiters(header, clean)
    for delimiter in [*delimiters, ONE_COLUMN] if not separator else delimiters:
        spaced = 0 < header.count(delimiter) == header.count(f"{delimiter} ")
        for space in (True, False) if spaced else (False,):
            for quote in ('"', None, "'"):
                if quote is None or quote in text or quote == '"':
                    yield Dialect(delimiter, quote, spaced=space)
                    if "\\" in text:
                        yield Dialect(delimiter, quote, escape=True, spaced=space)


def _delimiters(header: str, clean: CleanParams) -> list[str]:
    """Return the usual delimiters in a header, and the characters next to the wanted name."""
    names = "|".join(map(re.escape, records.paths(clean)))
    mark = r"([^\w\s'\".-])"
    pattern = rf"{mark}\s?['\"]?(?:{names})(?!\w)|(?<!\w)(?:{names})['\"]?{mark}"
    unusual = [mark for match in re.findall(pattern, header) for mark in match if mark]
    return [each for each in dict.fromkeys((*DELIMITERS, *unusual)) if each in header]


def _parse(lines: list[str], ended: bool, dialect: Dialect) -> _Parse:
    """Parse the first lines of a table; after a row that breaks the dialect, go on below it."""
    index = 0

    def feed() -> Iterator[str]:
        nonlocal index
        while index < len(lines):
            index += 1
            yield lines[index - 1]

    found: list[list[str]] = []
    bad = quoted = 0
    rows = dialect.rows(feed())
    while True:
        start = index
        try:
            row = next(rows)
        except StopIteration:
            break
        except csv.Error:
            if index == len(lines) and not ended:
                break  # the row goes on after the sample
            bad += 1
            index = start + 1
            rows = dialect.rows(feed())
            continue
        if row:
            found.append(row)
            bad += len(row) != len(found[0])
            quoted += index == start + 1 and _has_quoted_quote(lines[start], dialect)
    if dialect.quote and dialect.escape and not quoted:
        quoted = _count_escaped_quotes(lines, dialect)
    return _Parse(dialect, found, bad, quoted)


def _has_quoted_quote(line: str, dialect: Dialect) -> bool:
    """Return True if a line has a quoted field with quotes in it."""
    quote = dialect.quote
    inner = f"\\\\{quote}" if dialect.escape else f"{quote}{quote}"
    if not quote or inner[-2:] not in line:
        return False
    start = rf"(?:^|{re.escape(dialect.delimiter)}) ?{quote}"
    return bool(re.search(rf"{start}(?:[^{quote}\\]|{inner}|\\.)*?{inner}", line))


def _count_escaped_quotes(lines: list[str], dialect: Dialect) -> int:
    """Count lines with escaped quotes, in any field; 0 if a quote within a field is not escaped."""
    text, quote, end = "".join(lines), dialect.quote, rf"{re.escape(dialect.delimiter)}\r\n"
    if re.search(rf"(?<=[^\\{end}]){quote}(?=[^{end}])", text):
        return 0
    return sum(f"\\{quote}" in line for line in lines)


def _best_quoting(parses: list[_Parse]) -> _Parse:
    """Choose among the dialects of one delimiter."""
    least = min(parse.bad for parse in parses)
    viable = [parse for parse in parses if parse.bad == least]
    if any(parse.quoted for parse in viable):
        return max(viable, key=lambda parse: parse.quoted)
    raw = next((parse for parse in parses if parse.dialect.quote is None), None)
    for quote in '"', "'":
        quoting = [parse for parse in viable if parse.dialect.quote == quote]
        if quoting and raw and _is_mostly_quoted(raw.rows, quote):
            return quoting[0]
    # In tab-separated values, quotes are text unless something shows that they are not.
    literal = [parse for parse in viable if parse.dialect.quote is None]
    return literal[0] if literal and literal[0].dialect.delimiter == "\t" else viable[0]


def _is_mostly_quoted(rows: list[list[str]], quote: str) -> bool:
    """Return True if the header or nearly all rows have a field in quotes."""
    found = [
        any(len(cell) > 1 and cell[0] == cell[-1] == quote for cell in map(str.strip, row))
        for row in rows
    ]
    return bool(found) and (found[0] or (len(found) > 3 and sum(found) >= MOSTLY * len(found)))


def _problem(rows: list[dict[str, str]], clean: CleanParams) -> str | None:
    """Explain which columns are missing for a document; None if none is."""
    problem = records.template_problem(rows, clean, "column")
    if problem or not records.is_record(rows[0], clean):
        return problem or records.missing_field(rows, clean, "column")
    return None


def _explain(header: list[str], rows: list[list[str]], clean: CleanParams) -> str:
    """Explain that a table lacks the text column, and how to name one by its number."""
    lengths = Counter({number: len(cell) for number, cell in enumerate(header, start=1)})
    for row in rows:
        lengths.update({number: len(cell) for number, cell in enumerate(row, start=1)})
    (longest, _), *_ = lengths.most_common(1)
    numbered = f"name the column by its number, as in {records.PARAM}={longest}"
    if any(not cell or len(cell) > MAX_NAME or NUMBER.fullmatch(cell) for cell in header):
        shown = ", ".join(cell[:MAX_NAME] + "..." * (len(cell) > MAX_NAME) for cell in header)
        wanted = '" or "'.join(records.paths(clean))
        missing = f'no column "{wanted}" ({records.PARAM}); the first row is no header'
        return f"{missing} ({shown}): {numbered}"
    named = [dict(zip(header, row, strict=False)) for row in rows] or [dict.fromkeys(header, "")]
    return (
        f"{records.missing_field(named, clean, 'column')} If the first row is no header, {numbered}"
    )


def _rows(lines: _Lines, table: Table, notes: Notes) -> Iterator[list[str] | Rejection]:
    """Yield the rows after the header; parse a row alone if it breaks the dialect."""
    fields, literal = len(table.names), table.dialect.quote is None
    beginning = True
    rows = table.dialect.rows(iter(lines))
    while True:
        lines.start_row()
        row: list[str] | None = None
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error:
            if lines.too_many and not _look_like_rows(lines.taken[1:FEW], table):
                lines.skip_quoted(table.dialect.quote or '"')
                rows = table.dialect.rows(iter(lines))
                yield Rejection("", "row_too_long", f"more than {MAX_ROW:,} characters")
                continue
        taken = lines.taken
        fits = row is not None and len(row) == fields
        unquoted = len(taken) == 1 and not (literal and '"' in taken[0])
        if row and fits and unquoted and not beginning:
            yield row  # the usual case, without detours
            continue
        if row is not None and len(taken) == 1 and not taken[0].strip():
            continue
        if beginning and SEP_LINE.match(taken[0]):
            lines.put_back(taken[1:])
            rows = table.dialect.rows(iter(lines))
            continue
        result: list[str] | Rejection = row or []
        if row is None or not fits or _is_doubtful(row, taken, table):
            lines.put_back(taken)
            recovered = _recover(lines, table)
            rows = table.dialect.rows(iter(lines))
            if not fits or (isinstance(recovered, list) and table.agrees(recovered)):
                notes.counts["unquoted_rows"] += isinstance(recovered, list)
                result = recovered
        if not (beginning and table.header):
            yield result
        beginning = False


def _is_doubtful(row: list[str], taken: list[str], table: Table) -> bool:
    """Return True if a row with the right number of fields could be other rows in truth."""
    if table.dialect.quote is None:
        return '"' in taken[0] and not table.agrees(row)
    return _is_several(taken, table)


def _is_several(taken: list[str], table: Table) -> bool:
    """Return True if each line of a row could be a row of its own.

    Then a quote at the start of a text has swallowed the lines up to another such quote.
    """
    delimiter, delimiters = table.dialect.delimiter, len(table.names) - 1
    if len(taken) == 1 or not delimiters or taken[-1].count(delimiter) != delimiters:
        return False
    if not table.typed and delimiter != "\t":
        return False
    rows = map(table.dialect.split, taken)
    return all(len(cells) == len(table.names) and table.agrees(cells) for cells in rows)


def _look_like_rows(taken: list[str], table: Table) -> bool:
    delimiters = len(table.names) - 1
    return bool(delimiters) and all(
        line.count(table.dialect.delimiter) == delimiters for line in taken
    )


def _recover(lines: _Lines, table: Table) -> list[str] | Rejection:
    """Parse the next row in another way than the dialect, which it breaks, or reject its line."""
    fields = len(table.names)
    dialect = table.dialect
    others = [
        Dialect(dialect.delimiter, dialect.quote or '"', escape, dialect.spaced)
        for escape in (False, True)
    ]
    for other in others:
        if other != dialect:
            with contextlib.suppress(csv.Error, StopIteration):
                row = next(other.rows(iter(lines)))
                if len(row) == fields and not _is_several(lines.taken, table):
                    return row
            lines.put_back(lines.taken)
    try:
        line = next(iter(lines))
    except csv.Error:
        return Rejection("", "row_too_long", f"more than {MAX_ROW:,} characters")
    cells = dialect.split(line)
    if dialect.quote and dialect.quote in line:
        inner = _with_inner_quotes(line, table)
        if inner:
            return inner
    if len(cells) == fields and table.agrees(cells):
        return cells
    if len(cells) < fields:
        padded = cells + [""] * (fields - len(cells))
        if (table.text is None or table.text < len(cells)) and table.agrees(padded):
            return padded
        return Rejection("", "too_few_fields", f"{len(cells)}, the header has {fields}")
    joined = _join_text(cells, table)
    if joined:
        return joined
    detail = f"{len(cells) - fields} more than the header has: is a quote missing?"
    if len(cells) == fields:
        detail = "its fields are unlike those of other rows: is a quote missing?"
    return Rejection("", "too_many_fields", detail)


def _with_inner_quotes(line: str, table: Table) -> list[str] | None:
    """Parse a row with quotes in a quoted field that are not doubled."""
    quote, delimiter = re.escape(table.dialect.quote or ""), re.escape(table.dialect.delimiter)
    line = line.rstrip("\r\n")
    boundaries = len(re.findall(f"{quote}{delimiter}|{delimiter}{quote}", line))
    if boundaries > MAX_BOUNDARIES or len(table.names) > MAX_BOUNDARIES:
        return None  # too many ways to divide it
    cell = f"(?:{quote}(.*?){quote}|((?!{quote})[^{delimiter}]*))"
    match = re.fullmatch(delimiter.join([cell] * len(table.names)), line, re.S)
    if not match:
        return None
    values = match.groups(default="")
    cells = [a or b for a, b in zip(values[::2], values[1::2], strict=True)]
    doubled = (table.dialect.quote or "") * 2
    cells = [cell.replace(doubled, table.dialect.quote or "") for cell in cells]
    return cells if table.agrees(cells) else None


def _join_text(cells: list[str], table: Table) -> list[str] | None:
    """Join the cells of a text with delimiters in it, if those around it show where it ends."""
    if table.text is None or not table.typed:
        return None
    after = len(table.names) - table.text - 1
    stop = len(cells) - after
    text = table.dialect.delimiter.join(cells[table.text : stop])
    row = [*cells[: table.text], text, *cells[stop:]]
    others = [n for n, column in enumerate(table.columns) if n != table.text and column.typed]
    return row if others and table.agrees(row) else None
