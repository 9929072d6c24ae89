"""Takes Project Gutenberg's header, footer, credits and transcriber's notes off a book.

In fifty years these were written in many forms, and most lists of markers stop at the usual one.
Here ``gutenberg_forms`` knows the forms; this module knows the order in which they stand: a
header up to its last line, credits, the book, a footer from its first line on. What has none of
the forms is the book, and a text without a header or a footer is no Gutenberg book.

Paragraphs in a list of lines: runs of lines that are not blank.

The forms in which Project Gutenberg's files say where a book starts and ends, and who made them.

One entry a form, with an example beside it; no title and no author. A form is looked for at the
start of a line or paragraph whose runs of blanks and line ends have become one blank, whatever
stars, brackets or quotes are drawn around it, and in any case.

Takes a transcriber's notes out of a book: in brackets, in boxes, under headings.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto

from atlas.cleaning.steps import gutenberg as forms


def next_filled(lines: list[str], start: int) -> int:
    """Index of the first line from ``start`` on that is not blank; the number of lines if none."""
    while start < len(lines) and not lines[start].strip():
        start += 1
    return start


def next_blank(lines: list[str], start: int) -> int:
    """Index of the first blank line from ``start`` on; the number of lines if there is none."""
    while start < len(lines) and lines[start].strip():
        start += 1
    return start


def paragraph_spans(lines: list[str], start: int = 0) -> Iterator[tuple[int, int]]:
    """First line of, and line after, each paragraph from ``start`` on."""
    while (top := next_filled(lines, start)) < len(lines):
        start = next_blank(lines, top)
        yield top, start


def paragraph_above(lines: list[str], start: int) -> tuple[int, int]:
    """First line of, and line after, the last paragraph before ``start``; 0, 0 if there is none."""
    stop = start
    while stop and not lines[stop - 1].strip():
        stop -= 1
    top = stop
    while top and lines[top - 1].strip():
        top -= 1
    return top, stop


def flat(lines: list[str]) -> str:
    """Lines as one, with one blank for every run of blanks and line ends."""
    return " ".join(" ".join(lines).split())


def trimmed(lines: list[str]) -> list[str]:
    """Lines from the first to the last that is not blank."""
    return lines[next_filled(lines, 0) : paragraph_above(lines, len(lines))[1]]


MADE = (
    r"(?:produced|prepared|transcribed|scanned|typed|keyed|digiti[sz]ed|converted|proof(?:ed|read)"
    r"|created|provided|submitted|contributed|updated)"
)
GUTENBERG = r"(?:copyrighted )?project gutenberg"
ETEXT = r"e-?(?:text|book)"


def _starts_with(*forms: str) -> Callable[[str], bool]:
    pattern = re.compile(rf"[\W_]*(?:{'|'.join(forms)})", re.IGNORECASE)
    return lambda line: pattern.match(line) is not None


def _holds(*forms: str) -> Callable[[str], bool]:
    pattern = re.compile("|".join(forms), re.IGNORECASE)
    return lambda paragraph: pattern.search(paragraph) is not None


# Lines after which the book starts.
is_start = _starts_with(
    rf"(?:start|beginning) of (?:the |this )?{GUTENBERG}",  # *** START OF THE PROJECT GUTENBERG ...
)
is_small_print_end = _starts_with(
    r"end\W*(?:of )?the\W+small\W+print",  # *END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver...
    r"small print!.*\*end\*",  # *SMALL PRINT! Ver.03.17.93*END*
    r"small print\W+v\.",  # ["Small Print" V.12.08.93]
)
is_rights_end = _starts_with(r"tells you about restrictions in how the file may be used")

# Lines after which the book has ended.
is_bold_end = _starts_with(
    rf"(?<=\*) ?end of (?:the |this )?{GUTENBERG}",  # *** END OF THE PROJECT GUTENBERG EBOOK ...
)
is_plain_end = _starts_with(
    r"(?-i:(?:The |THE )?E(?:nd|ND)) of (?:the |this )?(?:is )?"
    rf"(?:{GUTENBERG}|{ETEXT}\b)",  # End of Project Gutenberg's ...   The End of this Etext
    rf"(?-i:Ende) diese[rs]? (?:pro[jy]e[ck]t gutenberg|{ETEXT})",  # Ende dieses Projekt Gutenberg
    r"(?-i:Fine?|Einde|Fim) (?:d\w+ |van |het )*pro\w+ gutenberg",  # Fin de Project Gutenberg
    r"more information about this book is at the top of this file",
    rf"this is a {GUTENBERG} {ETEXT}, details above",
)
is_footer = _starts_with(
    r"this file should be named",  # ***** This file should be named 1065.txt or 1065.zip *****
    r"updated editions will replace",
    r"creating the works from (?:public domain )?print editions",
    r"start: full license",
    r"the full project gutenberg license",
    r"section 1\. +general terms of use and redistributing",
    r"start\W*(?:of )?the\W+small\W+print",  # ***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ...
    r"project gutenberg (?:of )?australia\W*$",
)

# Paragraphs of a header.
is_title = _starts_with(
    rf"(?:(?:this|the|is|a|an|of|copyrighted) )*project gutenberg(?:,? (?:of australia )?{ETEXT}\b"
    # The Project Gutenberg EBook of ..., by ...   *** A Project Gutenberg of Australia eBook ***
    r"|['\u2019]s (?!.*[.!?:;]$)"  # Project Gutenberg's ..., by ...; a sentence is no title
    r"|(?: of)? australia\b)",
)
is_licence = _starts_with(
    rf"this {ETEXT} is (?:for the use of anyone|made available at no cost)",
    r"copyright laws are changing all over the world",
    r"please take a look at the important information in this header",
    r"this (?:header )?should be the first thing seen",
    r"please (?:read the \W?legal small print|do not remove this)",
    r"welcome to the world of free plain vanilla electronic texts",
    r"e-?(?:books|texts) readable by both humans and by computers",
    r"these e-?(?:books|texts) (?:were )?prepared by",
    r"start\W*(?:of )?the\W+small\W+print",
)
is_metadata = _starts_with(
    r"(?:title|author|editor|translator|illustrator|contributor|commentator|(?:release|posting)"
    r" date|edition|(?:most recently|last) updated|date (?:first posted|(?:most recently|last)"
    r" updated)|language|character set encoding|original publication|e-?(?:book|text) no\."
    r"|credits|other information and formats) ?:",  # Release date: June 1, 2021 [eBook #1]
    r"(?:\w+,? )?\d{4} \[e-?(?:book|text) #\d",  # March, 1994 [Etext #11]
)
has_number = _holds(r"\[e-?(?:book|text) #\d+\]", r"\be-?book no\.:")
speaks_of_gutenberg = _holds(r"project gutenberg", r"gutenberg\.(?:org|net)", r"\be-?(?:book|text)")

# Paragraphs that say who made the file, and from what.
is_credit = _starts_with(
    rf"{MADE}(?:(?: ?, ?| and | ?& ?){MADE})* (?:by|from|for)\b",  # Scanned and proofed by ...
    rf"(?:this |the )?(?:project gutenberg )?(?:{ETEXT}|html|(?:electronic|digital) \w+|file|text"
    rf"|book|edition) (?:(?:version|edition) )?(?:(?:was|is) )?{MADE}(?:\b.{{0,40}}?) (?:by|from)"
    r"\b",  # This etext was produced from the 1908 edition by ...   E-text prepared by ...
    rf"(?:{ETEXT}|html(?: (?:version|edition|file)s?)?) by\b",  # HTML version by ...
    r"credits ?:",  # Credits: ...
    r"this file was first posted|(?:most recently|last|date last) updated",  # [Last updated: ...]
    rf"portions of this (?:{ETEXT}|header)",  # [Portions of this header are copyright ...
)
has_web_sign = _holds(  # thanks and sources; no title page of an old book has any of these
    r"https?://|\bwww[.:]|\w@[\w.-]{1,80}\.\w|\bpgdp\b",
    r"distributed proofread|internet archive|gallica\.bnf",
)
is_html_note = _starts_with(  # Note: Project Gutenberg also has an HTML version of this file
    r"(?:editorial )?note: .*(?:project gutenberg|html version|images of the original)",
)

# Names of a transcriber's notes.
NOTE_NAME = re.compile(
    r"""[\W_]*(?:
    transcri(?:b|pt)(?:er|or|ion)['\u2019]?s?['\u2019]?\ (?:end\ ?|foot)?
        (?:notes?|comments?|remarks?|corrections?|errata|changes)   # Transcriber's Note
    | notes?\ (?:by|from|of|on|to)\ (?:the\ )?transcri(?:b|pt)\w+   # Note by the Transcriber
    | (?:errata|corrections?|errors?|changes)\ (?:\w+\ ){0,3}by\ (?:the\ )?transcriber
    | (?:e-?text|redactor['\u2019]s)\ notes?                        # Redactor's Note
    | information\ about\ this\ e-?text\ edition
    | typographical\ errors\ corrected
    | (?:not[aes]{1,2}|remarques?)\ (?:sur\ )?(?:d?[eaiou]{0,2}l?\ )?(?:d['\u2019])?
        (?:l[ae]\ )?tra(?:n)?scri\w+         # Note du transcripteur, Nota del trascrittore
    | (?:anmerkung|hinweis|bemerkung|notiz)(?:en|e)?\ (?:zu[rm]?|de[rs])\ (?:transkri|bearbeit)\w+
    | (?:opmerking(?:en)?|noo?ten?)\ van\ de\ (?:bewerker|transcri)\w*
    )(?P<rest>.*)""",
    re.IGNORECASE | re.VERBOSE,
)
is_address = _starts_with(r"au lecteur\W*$", r"to the reader\W*$", r"an den leser\W*$")
speaks_of_file = _holds(  # what tells such an address from the author's own
    r"transcri|transkri|livre \wlectronique|italiques? dans l.original|erreurs? typograph",
    r"\be-?(?:text|book)",
)
is_file_note = re.compile(  # [This text is intended for users whose text readers cannot use ...
    rf"\[this (?:{ETEXT}|text|file|version) (?:is|was|has|comes|uses|includes)\b", re.IGNORECASE
).match
speaks_of_editing = _holds(
    r"\boriginal\b|\bitalics?\b|\bspelling|\bhyphen|\btypo|\bcorrected\b|\bpunctuation",
    r"\bunderscore|\bascii\b|\butf-8|\bunicode|\be-?(?:text|book)|transcri",
)
is_divider = re.compile(r"\s*(?:[*\-=_~+]\s*){3,}").fullmatch


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
