"""Takes a transcriber's notes out of a book: in brackets, in boxes, under headings."""

from enum import Enum, auto

from atlas.cleaning.steps import gutenberg_forms as forms
from atlas.cleaning.steps.paragraphs import flat, next_blank, next_filled, paragraph_above, trimmed

BRACKET_LINES = 200  # of the longest note in brackets
HEADING_LINES = 60  # of the longest note under a heading, within a book
HEADING_WORDS = 3  # that may follow the name of a note in its heading
CLOSING_LINES = 120  # of notes that follow a book, if they are no more than half of it
CLOSING_SHARE = 0.1  # of the lines of a long book
EVIDENCE_LINES = 15  # after an address to the reader, where it must speak of the file


class Kind(Enum):
    """How a note is set apart from the book."""

    BRACKETS = auto()  # [Transcriber's Note: ...]
    BOX = auto()  # lines of + - and |
    HEADING = auto()  # alone in its line, and what follows
    PARAGRAPH = auto()  # Transcriber's Note: ...


def without_notes(lines: list[str]) -> tuple[list[str], int]:
    """Takes out the notes of a book's transcriber.

    Args:
        lines: the book.

    Returns:
        The lines that are left, without dividers that set notes apart at either end, and the
        number of notes.
    """
    lines = trimmed(lines)
    kept: list[str] = []
    count = i = 0
    while i < len(lines):
        end = _note_end(lines, i)
        if end == i:
            kept.append(lines[i])
            i += 1
            continue
        count += 1
        i = next_filled(lines, end)
        if not kept:
            i = _after_dividers(lines, i)
    if count and _after_dividers(lines, end) == len(lines):
        while kept and (not kept[-1].strip() or forms.is_divider(kept[-1])):
            kept.pop()
    return kept, count


def opens_note(lines: list[str], i: int) -> bool:
    """Whether a transcriber's note starts in line ``i``."""
    return _kind(lines, i) is not None


def _kind(lines: list[str], i: int) -> Kind | None:
    line = lines[i].strip()
    if line.startswith("+") and i + 1 < len(lines) and forms.NOTE_NAME.match(flat([lines[i + 1]])):
        return Kind.BOX
    if forms.is_file_note(line):
        return Kind.BRACKETS
    rest = _after_name(lines, i)
    if rest is None:
        return None
    if line.startswith("|"):
        return Kind.BOX
    alone = not any(map(str.isalnum, rest))
    if line.startswith("[") and not (alone and line.endswith("]")):
        return Kind.BRACKETS
    followed = i + 1 < len(lines) and lines[i + 1].strip()
    if alone or (len(rest.split()) <= HEADING_WORDS and not followed):
        return Kind.HEADING
    return Kind.PARAGRAPH if rest.lstrip(" ]_*=").startswith((":", ".", "-", "\u2014")) else None


def _after_name(lines: list[str], i: int) -> str | None:
    """What follows the name of a note in line ``i``; None if it has none."""
    line = flat([lines[i]])
    if match := forms.NOTE_NAME.match(line):
        return match["rest"]
    following = flat(lines[i + 1 : i + EVIDENCE_LINES]) if forms.is_address(line) else ""
    return "" if forms.speaks_of_file(following) else None


def _note_end(lines: list[str], i: int) -> int:
    """Index after the note that starts in line ``i``; ``i`` itself if none does."""
    match _kind(lines, i):
        case None:
            return i
        case Kind.BOX:
            return _box_end(lines, i)
        case Kind.BRACKETS:
            return _bracket_end(lines, i)
        case Kind.HEADING:
            return len(lines) if _closes_book(lines, i) else _section_end(lines, i)
        case Kind.PARAGRAPH:
            if i and not _stands_apart(lines, i):
                return next_blank(lines, i)
            return len(lines) if _closes_book(lines, i) else _last_remark_end(lines, i)


def _box_end(lines: list[str], i: int) -> int:
    while i < len(lines) and lines[i].lstrip().startswith(("|", "+")):
        i += 1
    return i


def _bracket_end(lines: list[str], i: int) -> int:
    """Index after the line that closes the bracket; ``i`` if the book goes on within that line."""
    depth = 0
    for j in range(i, min(len(lines), i + BRACKET_LINES)):
        depth += lines[j].count("[") - lines[j].count("]")
        if depth <= 0:
            return j + 1 if lines[j].rstrip().endswith("]") else i
    return next_blank(lines, i)


def _stands_apart(lines: list[str], i: int) -> bool:
    """Whether two blank lines or a divider stand above line ``i``."""
    _, above = paragraph_above(lines, i)
    return i - above > 1 or (above > 0 and forms.is_divider(lines[above - 1]) is not None)


def _closes_book(lines: list[str], i: int) -> bool:
    longest = max(CLOSING_SHARE * len(lines), min(CLOSING_LINES, len(lines) / 2))
    return i > 0 and len(lines) - i <= longest


def _section_end(lines: list[str], i: int) -> int:
    """Index after what stands under a heading: up to two blank lines, or one paragraph."""
    first_paragraph = next_blank(lines, next_filled(lines, i + 1))
    end = first_paragraph
    while end < min(len(lines), i + HEADING_LINES):
        if forms.is_divider(lines[end]) or not flat(lines[end : end + 2]):
            return end
        end += 1
    return end if end == len(lines) else first_paragraph


def _last_remark_end(lines: list[str], i: int) -> int:
    """Index after a paragraph and those right below it that speak of the making of the file."""
    end = next_blank(lines, i)
    while (start := end + 1) < len(lines) and lines[start].strip():
        stop = next_blank(lines, start)
        if not forms.speaks_of_editing(flat(lines[start:stop])):
            break
        end = stop
    return end


def _after_dividers(lines: list[str], i: int) -> int:
    while i < len(lines) and (not lines[i].strip() or forms.is_divider(lines[i])):
        i += 1
    return i
