"""Files of results, read with care: what is missing is left out, what is broken is named."""

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

Value = int | float | str | bool
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
PICTURES = str.maketrans(CONTROLS | {0x7F: 0x2421})  # of control characters, as ␀
NO_CHARACTERS = re.compile("[\x80-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
PNG = b"\x89PNG\r\n\x1a\n"
MOST = 1e100  # a number beyond is none of a result
CELL = 1 << 24  # characters; Python's own limit is below the length of some samples


def readable(text: str) -> str:
    """A text that any page can hold: signs for control characters, U+FFFD for what is none."""
    return NO_CHARACTERS.sub("\ufffd", text.replace("\r\n", "\n").translate(PICTURES))


@dataclass(frozen=True)
class Table:
    """A table as its file has it.

    Attributes:
        columns: their names, C.
        rows: the cells of each row, (N, C).
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def has(self, *columns: str) -> bool:
        """Whether all of these columns are there."""
        return set(columns) <= set(self.columns)

    def texts(self, column: str) -> list[str]:
        """The cells of a column, (N,)."""
        place = self.columns.index(column)
        return [row[place] for row in self.rows]

    def numbers(self, column: str) -> list[float]:
        """The cells of a column as numbers, (N,); NaN where a cell holds none."""
        return [number(cell) for cell in self.texts(column)]


def number(cell: str) -> float:
    """A cell as a finite number; NaN for anything else."""
    try:
        found = float(cell)
    except ValueError:
        return math.nan
    return found if is_number(found) else math.nan


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number that can be computed with: no NaN, nothing beyond reason."""
    return isinstance(value, int | float) and -MOST < value < MOST


@dataclass(frozen=True)
class Reader:
    """Reads files of a folder.

    Attributes:
        folder: where they are.
        problems: a line for each one that could not be read, or not to its end.
    """

    folder: Path
    problems: list[str] = field(default_factory=list)

    def below(self, place: str, ending: str) -> list[Path]:
        """The files of a folder with this ending, in order; hidden ones are half-written."""
        found = sorted((self.folder / place).glob(f"*{ending}"))
        return [path for path in found if path.is_file() and not path.name.startswith(".")]

    def values(self, path: Path) -> Mapping[str, Value]:
        """An object of JSON, without what lies deeper; empty if it is none."""
        text = self.text(path)
        if text is None:
            return {}
        try:
            found: Any = json.loads(text)
        except (ValueError, RecursionError):
            self._problem(path, "no whole JSON")
            return {}
        if not isinstance(found, dict):
            self._problem(path, "no JSON object")
            return {}
        return {
            readable(key): readable(value) if isinstance(value, str) else value
            for key, value in found.items()
            if isinstance(value, str) or is_number(value)
        }

    def table(self, path: Path) -> Table | None:
        """A table with a header; rows that are cut off are left out."""
        text = self.text(path)
        if text is None:
            return None
        csv.field_size_limit(CELL)
        try:
            lines = [tuple(line) for line in csv.reader(io.StringIO(text, newline="")) if line]
        except csv.Error as error:
            self._problem(path, f"no table: {error}")
            return None
        if not lines or len(set(lines[0])) < len(lines[0]):
            self._problem(path, "no header" if not lines else "two columns of one name")
            return None
        rows = tuple(line for line in lines[1:] if len(line) == len(lines[0]))
        if cut := len(lines) - 1 - len(rows):
            self._problem(
                path, f"{cut:,} {'row does' if cut == 1 else 'rows do'} not fit the header"
            )
        return Table(lines[0], rows) if rows else None

    def text(self, path: Path) -> str | None:
        """A text, bytes that are no UTF-8 as U+FFFD; None if the file is missing."""
        found = self.bytes(path)
        return None if found is None else readable(found.decode("utf-8", errors="replace"))

    def picture(self, path: Path) -> bytes | None:
        """A PNG file; None if it is none."""
        found = self.bytes(path)
        if found is not None and not (found.startswith(PNG) and b"IEND" in found[24:][-12:]):
            self._problem(path, "no whole PNG picture")
            return None
        return found

    def bytes(self, path: Path) -> bytes | None:
        """The content of a file; None if there is none."""
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._problem(path, error.strerror or "not readable")
            return None

    def _problem(self, path: Path, what: str) -> None:
        place = path.relative_to(self.folder.parent).as_posix()
        self.problems.append(f"{readable(place)}: {readable(what)}")
