"""Units of reading: a raw file or a part of one, and the items that reading it yields."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from atlas.cleaning.documents import Document
from atlas.corpora.formats import Format
from atlas.errors import one_line


@dataclass(frozen=True)
class Piece:
    """A raw file, a member of an archive, or a range of a file."""

    path: Path
    name: str  # prefix of the ids of its documents
    member: str | None = None  # name within the zip archive at ``path``
    start: int = 0  # first byte (text, JSON Lines) or row group (Parquet)
    stop: int | None = None  # byte or row group to end before, None for the end
    first_line: int = 1  # number of the first line that starts in the range
    size: int = 0  # declared unpacked bytes
    format: Format | None = None  # None: detected when it is read
    opener: Callable[[], BinaryIO] | None = None  # opens a member while its archive is read
    content: bytes | None = None  # of a small file, unpacked, when it has been read
    packed_bytes: int = 0  # of the archive around a member
    depth: int = 0  # number of archives around it
    is_pack: bool = False  # of small files, whose names start with ``name``

    @property
    def whole(self) -> bool:
        """True for a file, False for a range of one."""
        return self.start == 0 and self.stop is None


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


@dataclass(frozen=True)
class TextBlock(Document):
    """Text of a file, which ``clean.documents`` can divide further; other documents are records."""


@dataclass
class Notes:
    """Facts about the files read that the user is told."""

    counts: Counter[str] = field(default_factory=Counter)  # metrics, such as replaced_bytes
    guessed: dict[str, str] = field(default_factory=dict)  # encodings of files by name
    warnings: list[str] = field(default_factory=list)  # one line each

    def guess(self, name: str, encoding: str, declared: str | None = None) -> None:
        """Note that the encoding of a file was guessed, and what the file declares instead."""
        self.guessed[name] = encoding
        if declared:
            self.warnings.append(f"{name}: declares {declared}, but reads as {encoding}")

    def warn(self, message: str) -> None:
        """Add a warning as one line."""
        self.warnings.append(one_line(message))
