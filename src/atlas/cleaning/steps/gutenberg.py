"""Takes Project Gutenberg's header, footer, credits and transcriber's notes off a book.

In fifty years these were written in many forms, and most lists of markers stop at the usual one.
Here ``gutenberg_forms`` knows the forms; this module knows the order in which they stand: a
header up to its last line, credits, the book, a footer from its first line on. What has none of
the forms is the book, and a text without a header or a footer is no Gutenberg book.
"""

from dataclasses import dataclass

from atlas.cleaning.steps import gutenberg_forms as forms
from atlas.cleaning.steps.paragraphs import (
    flat,
    next_blank,
    next_filled,
    paragraph_above,
    paragraph_spans,
    trimmed,
)
from atlas.cleaning.steps.transcriber_notes import opens_note, without_notes

WINDOW = 1 << 16  # characters at either end in which headers (18 kB) and footers (22 kB) stand
OPENING = 3  # paragraphs in which a header shows that it is one
TITLE_LENGTH = 240  # characters; a longer paragraph is prose about Project Gutenberg
MARKER_LINES = 4  # that a long title wraps a marker over
CREDIT_LINES = 25
ADDRESS_LINES = 8  # of a credit that only its web address gives away
LICENCE_WITHIN = 40  # lines after an end line, where a footer names Project Gutenberg


@dataclass(frozen=True)
class Stripped:
    """A book without what Project Gutenberg added, and what that was.

    Attributes:
        text: the book from its first to its last line that is not blank, or the text as it came.
        header: whether a header was taken off.
        footer: whether a footer was.
        credits: whether credits were that stood outside of header and footer.
        notes: how many transcriber's notes were.
    """

    text: str
    header: bool = False
    footer: bool = False
    credits: bool = False
    notes: int = 0


def strip_gutenberg(text: str, notes: bool) -> Stripped:
    r"""Finds the book in a file of Project Gutenberg.

    Args:
        text: a document with ``\n`` line ends.
        notes: whether to take off transcriber's notes as well.

    Returns:
        The book, its lines untouched; a text that is none comes back as it is.
    """
    edges = text[:WINDOW], text[-WINDOW:]
    if not any("utenberg" in edge or "UTENBERG" in edge for edge in edges):
        return Stripped(text)
    lines = text.split("\n")
    header = _header_end(lines)
    start = _after_credits(lines, header)
    footer, credited = _footer_start(lines, start, has_header=header > 0)
    if header == 0 and footer == len(lines):
        return Stripped(text)
    credited = credited or start > header
    book = lines[start:footer]
    removed = 0
    if notes:
        book, removed = without_notes(book)
        start = _after_credits(book, 0)
        credited = credited or start > 0
        book = book[start:]
    body = "".join(f"{line}\n" for line in trimmed(book))
    return Stripped(body, header > 0, footer < len(lines), credited, removed)


def _header_end(lines: list[str]) -> int:
    """Index of the first line after the header; 0 if there is none."""
    small_print = rights = 0
    for i in range(_reach(lines)):
        if not lines[i].strip():
            continue
        line = flat(lines[i : i + 2])
        if forms.is_bold_end(line) or forms.is_plain_end(line):
            break
        if forms.is_start(line):
            if _is_header(lines[:i]):
                return _marker_end(lines, i)
            break
        if not small_print and forms.is_small_print_end(line):
            small_print = i + 1
        if not rights and forms.is_rights_end(line):
            rights = i + 1
    if rights and _opens_header(_paragraphs(lines[:rights])):
        return rights
    # With nothing after it, the small print is a footer.
    if next_filled(lines, small_print) < len(lines) and _opens_header(
        _paragraphs(lines[:small_print])
    ):
        return small_print
    return _header_without_end(lines)


def _reach(lines: list[str]) -> int:
    """How many lines stand in the first ``WINDOW`` characters."""
    characters = 0
    for i, line in enumerate(lines):
        characters += len(line) + 1
        if characters > WINDOW:
            return i
    return len(lines)


def _paragraphs(lines: list[str]) -> list[str]:
    return [flat(lines[start:stop]) for start, stop in paragraph_spans(lines)]


def _is_header(lines: list[str]) -> bool:
    """Whether nothing, or what mostly has the forms of a header, stands before its last line."""
    paragraphs = _paragraphs(lines)
    if not paragraphs:
        return True
    known = sum(
        _is_known(paragraph) or forms.is_credit(paragraph) or forms.speaks_of_gutenberg(paragraph)
        for paragraph in paragraphs
    )
    return _opens_header(paragraphs) and 2 * known >= len(paragraphs)


def _opens_header(paragraphs: list[str]) -> bool:
    return any(map(_is_known, paragraphs[:OPENING]))


def _is_known(paragraph: str) -> bool:
    return _is_title(paragraph) or forms.is_licence(paragraph) or forms.is_metadata(paragraph)


def _is_title(paragraph: str) -> bool:
    return forms.is_title(paragraph) and len(paragraph) <= TITLE_LENGTH


def _header_without_end(lines: list[str]) -> int:
    """The end of paragraphs that all belong to a header, two or more, one of them for certain."""
    end = count = 0
    certain = False
    for start, stop in paragraph_spans(lines):
        paragraph = flat(lines[start:stop])
        if not (
            _is_known(paragraph)
            or (count and (forms.is_credit(paragraph) or forms.speaks_of_gutenberg(paragraph)))
        ):
            break
        certain = certain or forms.is_licence(paragraph) or forms.has_number(paragraph)
        end, count = stop, count + 1
    return end if certain and count > 1 else 0


def _marker_end(lines: list[str], start: int) -> int:
    """Index after a marker that may be wrapped over lines, up to its closing stars."""
    for i in range(start, min(start + MARKER_LINES, len(lines))):
        if not lines[i].strip():
            break
        if lines[i].rstrip().endswith("***"):
            return i + 1
    return start + 1


def _footer_start(lines: list[str], book: int, has_header: bool) -> tuple[int, bool]:
    """Index of the footer's first line, and whether credits were found right above it."""
    first = max(book, len(lines) - _reach(lines[::-1]))
    filled = [i for i in range(first, len(lines)) if lines[i].strip()]
    ends = [i for i in filled if _is_end(lines, i)]
    footers = [i for i in filled if forms.is_footer(flat(lines[i : i + 2]))]
    # An earlier end line may be the end of a part; only the last one ends the book.
    if ends and _ends_book(lines, ends[-1], trusted=has_header):
        return _grown_upwards(lines, ends[-1], book)
    if footers and (has_header or len(footers) > 1):
        return _grown_upwards(lines, footers[0], book)
    return len(lines), False


def _is_end(lines: list[str], i: int) -> bool:
    line = flat(lines[i : i + 2])
    return forms.is_bold_end(line) or forms.is_plain_end(line)


def _ends_book(lines: list[str], i: int, trusted: bool) -> bool:
    """Whether a footer, or nothing, follows an end line; a marker in stars needs no more proof."""
    if trusted and forms.is_bold_end(flat(lines[i : i + 2])):
        return True
    rest = next_filled(lines, next_blank(lines, i))
    following = flat(lines[rest : rest + LICENCE_WITHIN])
    return not following or forms.speaks_of_gutenberg(following)


def _grown_upwards(lines: list[str], start: int, book: int) -> tuple[int, bool]:
    """The footer's start, with other end lines and credits that stand right above."""
    credited = False
    while True:
        top, stop = paragraph_above(lines, start)
        top = max(top, book)
        above = flat(lines[top:stop])
        ends = [i for i in range(max(top, stop - MARKER_LINES), stop) if _is_end(lines, i)]
        if ends:
            start = ends[0]
        elif forms.is_credit(above) and forms.has_web_sign(above) and stop - top <= CREDIT_LINES:
            start, credited = top, True
        else:
            return start, credited


def _after_credits(lines: list[str], start: int) -> int:
    """Index after the credits that stand at ``start``, or ``start`` itself."""
    end = start
    for top, stop in paragraph_spans(lines, start):
        paragraph = flat(lines[top:stop])
        if opens_note(lines, top) or not _belongs_to_credits(paragraph, stop - top):
            break
        end = stop
    return end


def _belongs_to_credits(paragraph: str, lines: int) -> bool:
    if lines <= CREDIT_LINES and (forms.is_credit(paragraph) or forms.is_html_note(paragraph)):
        return True
    return (lines <= ADDRESS_LINES and forms.has_web_sign(paragraph)) or _is_title(paragraph)
