"""Strip Project Gutenberg's header, footer, credits and transcriber's notes from a book.

A file consists of a header, credits, the book, and a footer. Over fifty years these took many
forms, listed here as patterns, each with an example and without titles or authors. A
pattern is matched against the start of a line or paragraph after whitespace is collapsed, ignoring
case and any stars, brackets or quotes around it. Text that matches nothing belongs to the book,
and a text without a header or a footer is not a Gutenberg book.

Transcriber's notes come in brackets, in boxes, under headings, or as paragraphs.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, takewhile

WINDOW = 1 << 16  # characters searched at either end: headers reach 18 kB, footers 22 kB
HEADER_OPENING = 3  # first paragraphs; at least one must be a known header paragraph
MAX_MARKER_LINES = 4  # of a marker wrapped by a long title
MAX_CREDIT_LINES = 25
MAX_WEB_CREDIT_LINES = 8  # of a credit recognized only by a web address
FOOTER_LINES = 40  # after an end line, which must mention Project Gutenberg

MAX_BRACKET_LINES = 200  # of a note in brackets
MAX_HEADING_LINES = 60  # of a note under a heading, within a book
MAX_HEADING_WORDS = 3  # after the name of a note in its heading
MAX_CLOSING_LINES = 120  # of notes after a book, at most half of its lines
MAX_CLOSING_SHARE = 0.1  # share of the lines of a long book
EVIDENCE_LINES = 15  # after an address to the reader, which must mention the file

VERB = (
    r"(?:produced|prepared|transcribed|scanned|typed|keyed|digiti[sz]ed|converted|proof(?:ed|read)"
    r"|created|provided|submitted|contributed|updated)"
)
GUTENBERG = r"(?:copyrighted )?project gutenberg"
ETEXT = r"e-?(?:text|book)"


def _starts_with(*patterns: str, max_length: float = math.inf) -> Callable[[str], bool]:
    pattern = re.compile(rf"[\W_]*(?:{'|'.join(patterns)})", re.IGNORECASE)
    return lambda text: len(text) <= max_length and pattern.match(text) is not None


def _contains(*patterns: str) -> Callable[[str], bool]:
    pattern = re.compile("|".join(patterns), re.IGNORECASE)
    return lambda text: pattern.search(text) is not None


def _any_of(*predicates: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: any(predicate(text) for predicate in predicates)


# The last line of a header.
is_start = _starts_with(
    rf"(?:start|beginning) of (?:the |this )?{GUTENBERG}",  # *** START OF THE PROJECT GUTENBERG ...
)
is_small_print_end = _starts_with(
    r"end\W*(?:of )?the\W+small\W+print",  # *END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver...
    r"small print!.*\*end\*",  # *SMALL PRINT! Ver.03.17.93*END*
    r"small print\W+v\.",  # ["Small Print" V.12.08.93]
)
is_rights_end = _starts_with(r"tells you about restrictions in how the file may be used")

# The first line of a footer.
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
is_end = _any_of(is_bold_end, is_plain_end)
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
    max_length=240,  # longer paragraphs are prose about Project Gutenberg
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
is_header_paragraph = _any_of(is_title, is_licence, is_metadata)
has_number = _contains(r"\[e-?(?:book|text) #\d+\]", r"\be-?book no\.:")
mentions_gutenberg = _contains(
    r"project gutenberg", r"gutenberg\.(?:org|net)", r"\be-?(?:book|text)"
)

# Paragraphs that name the people who made the file, and its source.
is_credit = _starts_with(
    rf"{VERB}(?:(?: ?, ?| and | ?& ?){VERB})* (?:by|from|for)\b",  # Scanned and proofed by ...
    rf"(?:this |the )?(?:project gutenberg )?(?:{ETEXT}|html|(?:electronic|digital) \w+|file|text"
    rf"|book|edition) (?:(?:version|edition) )?(?:(?:was|is) )?{VERB}(?:\b.{{0,40}}?) (?:by|from)"
    r"\b",  # This etext was produced from the 1908 edition by ...   E-text prepared by ...
    rf"(?:{ETEXT}|html(?: (?:version|edition|file)s?)?) by\b",  # HTML version by ...
    r"credits ?:",  # Credits: ...
    r"this file was first posted|(?:most recently|last|date last) updated",  # [Last updated: ...]
    rf"portions of this (?:{ETEXT}|header)",  # [Portions of this header are copyright ...
)
is_known_paragraph = _any_of(is_header_paragraph, is_credit, mentions_gutenberg)
mentions_web = _contains(  # thanks and sources, never on the title page of an old book
    r"https?://|\bwww[.:]|\w@[\w.-]{1,80}\.\w|\bpgdp\b",
    r"distributed proofread|internet archive|gallica\.bnf",
)
is_html_note = _starts_with(  # Note: Project Gutenberg also has an HTML version of this file
    r"(?:editorial )?note: .*(?:project gutenberg|html version|images of the original)",
)

# Headings of transcriber's notes.
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
mentions_file = _contains(  # distinguishes it from an author's address to the reader
    r"transcri|transkri|livre \wlectronique|italiques? dans l.original|erreurs? typograph",
    r"\be-?(?:text|book)",
)
is_file_note = re.compile(  # [This text is intended for users whose text readers cannot use ...
    rf"\[this (?:{ETEXT}|text|file|version) (?:is|was|has|comes|uses|includes)\b", re.IGNORECASE
).match
mentions_editing = _contains(
    r"\boriginal\b|\bitalics?\b|\bspelling|\bhyphen|\btypo|\bcorrected\b|\bpunctuation",
    r"\bunderscore|\bascii\b|\butf-8|\bunicode|\be-?(?:text|book)|transcri",
)
is_divider = re.compile(r"\s*(?:[*\-=_~+]\s*){3,}").fullmatch


@dataclass(frozen=True)
class Stripped:
    """A book without Project Gutenberg's additions; any other text is unchanged."""

    text: str  # from the first to the last non-blank line of the book
    header: bool = False  # was removed
    footer: bool = False
    credits: bool = False  # outside of header and footer
    notes: int = 0  # number of transcriber's notes removed


def strip_gutenberg(text: str, notes: bool) -> Stripped:
    r"""Extract the book from a Project Gutenberg file, its lines unchanged.

    The text has ``\n`` line ends; ``notes`` also removes transcriber's notes.
    """
    edges = text[:WINDOW], text[-WINDOW:]
    if not any("utenberg" in edge or "UTENBERG" in edge for edge in edges):
        return Stripped(text)
    lines = text.split("\n")
    header = _header_end(lines)
    start = _credits_end(lines, header)
    footer, credited = _footer_start(lines, start, has_header=header > 0)
    if header == 0 and footer == len(lines):
        return Stripped(text)
    credited |= start > header
    book = lines[start:footer]
    removed = 0
    if notes:
        book, removed = _remove_notes(book)
        start = _credits_end(book, 0)
        credited |= start > 0
        book = book[start:]
    body = "".join(f"{line}\n" for line in _trim(book))
    return Stripped(body, header > 0, footer < len(lines), credited, removed)


def _header_end(lines: list[str]) -> int:
    """Find the first line after the header, or 0."""
    small_print = rights = 0
    for i, line in _filled(lines, 0, _lines_in_window(lines)):
        if is_start(line) and _is_header(lines[:i]):
            return _marker_end(lines, i)
        if is_start(line) or is_end(line):
            break
        if is_small_print_end(line):
            small_print = small_print or i + 1
        if is_rights_end(line):
            rights = rights or i + 1
    if _starts_header(_paragraphs(lines[:rights])):
        return rights
    at_the_end = not any(map(str.strip, lines[small_print:]))  # of the file: a footer
    if _starts_header(_paragraphs(lines[:small_print])) and not at_the_end:
        return small_print
    return _header_without_marker(lines)


def _lines_in_window(lines: list[str]) -> int:
    """Count the lines within the first ``WINDOW`` characters."""
    ends = accumulate(len(line) + 1 for line in lines)
    return sum(1 for _ in takewhile(lambda end: end <= WINDOW, ends))


def _is_header(lines: list[str]) -> bool:
    """Check that the lines before a start marker are empty or mostly known header paragraphs."""
    paragraphs = _paragraphs(lines)
    known = sum(map(is_known_paragraph, paragraphs))
    return not paragraphs or (_starts_header(paragraphs) and 2 * known >= len(paragraphs))


def _starts_header(paragraphs: list[str]) -> bool:
    return any(map(is_header_paragraph, paragraphs[:HEADER_OPENING]))


def _header_without_marker(lines: list[str]) -> int:
    """Find the end of two or more header paragraphs, with at least one unmistakable one."""
    end = count = 0
    certain = False
    for start, stop in _paragraph_spans(lines):
        paragraph = _collapse(lines[start:stop])
        if not (is_known_paragraph if count else is_header_paragraph)(paragraph):
            break
        certain = certain or is_licence(paragraph) or has_number(paragraph)
        end, count = stop, count + 1
    return end if certain and count > 1 else 0


def _marker_end(lines: list[str], start: int) -> int:
    """Find the line after a marker, which can wrap over lines up to its closing stars."""
    for i in range(start, min(start + MAX_MARKER_LINES, _next_blank(lines, start))):
        if lines[i].rstrip().endswith("***"):
            return i + 1
    return start + 1


def _footer_start(lines: list[str], book: int, has_header: bool) -> tuple[int, bool]:
    """Find the first line of the footer; also return True if it includes credits right above it."""
    first = max(book, len(lines) - _lines_in_window(lines[::-1]))
    filled = list(_filled(lines, first, len(lines)))
    ends = [i for i, line in filled if is_end(line)]
    footers = [i for i, line in filled if is_footer(line)]
    # Earlier end lines can end a part; only the last one ends the book.
    if ends and _ends_book(lines, ends[-1], trusted=has_header):
        return _extend_footer(lines, ends[-1], book)
    if footers and (has_header or len(footers) > 1):
        return _extend_footer(lines, footers[0], book)
    return len(lines), False


def _ends_book(lines: list[str], i: int, trusted: bool) -> bool:
    """Check that a footer or nothing follows an end line; a starred marker needs no proof."""
    if trusted and is_bold_end(_collapse(lines[i : i + 2])):
        return True
    rest = _next_filled(lines, _next_blank(lines, i))
    following = _collapse(lines[rest : rest + FOOTER_LINES])
    return not following or mentions_gutenberg(following)


def _extend_footer(lines: list[str], start: int, book: int) -> tuple[int, bool]:
    """Move the start of the footer up to include end lines and credits right above it."""
    credited = False
    while True:
        top, stop = _paragraph_above(lines, start)
        top = max(top, book)
        above = _collapse(lines[top:stop])
        last_lines = _filled(lines, max(top, stop - MAX_MARKER_LINES), stop)
        end = next((i for i, line in last_lines if is_end(line)), None)
        if end is not None:
            start = end
        elif is_credit(above) and mentions_web(above) and stop - top <= MAX_CREDIT_LINES:
            start, credited = top, True
        else:
            return start, credited


def _credits_end(lines: list[str], start: int) -> int:
    """Find the line after the credits at ``start``, or ``start`` if there are none."""
    end = start
    for top, stop in _paragraph_spans(lines, start):
        paragraph, count = _collapse(lines[top:stop]), stop - top
        named = is_credit(paragraph) or is_html_note(paragraph)
        linked = mentions_web(paragraph) and count <= MAX_WEB_CREDIT_LINES
        is_credits = is_title(paragraph) or linked or (named and count <= MAX_CREDIT_LINES)
        if not is_credits or _note_end(lines, top) is not None:
            break
        end = stop
    return end


def _remove_notes(lines: list[str]) -> tuple[list[str], int]:
    """Remove and count transcriber's notes; also remove dividers next to them at both ends."""
    lines = _trim(lines)
    kept: list[str] = []
    count = i = 0
    while i < len(lines):
        end = _note_end(lines, i) or i
        if end == i:
            kept.append(lines[i])
            i += 1
            continue
        count += 1
        i = _next_filled(lines, end) if kept else _skip(lines, end, _is_blank_or_divider)
    if count and _skip(lines, end, _is_blank_or_divider) == len(lines):
        while kept and _is_blank_or_divider(kept[-1]):
            kept.pop()
    return kept, count


def _note_end(lines: list[str], i: int) -> int | None:
    """Find the line after a note that starts in line ``i``; None if no note starts there.

    ``i`` itself means that text of the book follows the note on its last line.
    """
    line = lines[i].strip()
    following = lines[i + 1] if i + 1 < len(lines) else ""
    rest = _text_after_name(lines, i)
    boxed = line.startswith("+") and NOTE_NAME.match(_collapse([following]))
    if boxed or (rest is not None and line.startswith("|")):  # lines of + - and |
        return _skip(lines, i, lambda line: line.lstrip().startswith(("|", "+")))
    if is_file_note(line):
        return _bracket_end(lines, i)
    if rest is None:
        return None
    alone = not any(map(str.isalnum, rest))
    if line.startswith("[") and not (alone and line.endswith("]")):  # [Transcriber's Note: ...]
        return _bracket_end(lines, i)
    max_lines = max(MAX_CLOSING_SHARE * len(lines), min(MAX_CLOSING_LINES, len(lines) / 2))
    closes_book = i > 0 and len(lines) - i <= max_lines
    is_short = len(rest.split()) <= MAX_HEADING_WORDS
    if alone or (is_short and not following.strip()):  # a heading with text below
        return len(lines) if closes_book else _section_end(lines, i)
    if not rest.lstrip(" ]_*=").startswith((":", ".", "-", "\u2014")):  # Transcriber's Note: ...
        return None
    _, above = _paragraph_above(lines, i)
    if i and i - above < 2 and not (above and is_divider(lines[above - 1])):
        return _next_blank(lines, i)
    return len(lines) if closes_book else _remarks_end(lines, i)


def _text_after_name(lines: list[str], i: int) -> str | None:
    """Return the text after the name of a note in line ``i``, None without such a name."""
    line = _collapse([lines[i]])
    if match := NOTE_NAME.match(line):
        return match["rest"]
    following = _collapse(lines[i + 1 : i + EVIDENCE_LINES]) if is_address(line) else ""
    return "" if mentions_file(following) else None


def _bracket_end(lines: list[str], i: int) -> int:
    """Find the line after the closing bracket, or ``i`` if book text follows the bracket."""
    depth = 0
    for j in range(i, min(len(lines), i + MAX_BRACKET_LINES)):
        depth += lines[j].count("[") - lines[j].count("]")
        if depth <= 0:
            return j + 1 if lines[j].rstrip().endswith("]") else i
    return _next_blank(lines, i)


def _section_end(lines: list[str], i: int) -> int:
    """Find the end of the text under a heading: two blank lines, or else one paragraph."""
    first_paragraph = _next_blank(lines, _next_filled(lines, i + 1))
    end = first_paragraph
    while end < min(len(lines), i + MAX_HEADING_LINES):
        if is_divider(lines[end]) or not _collapse(lines[end : end + 2]):
            return end
        end += 1
    return end if end == len(lines) else first_paragraph


def _remarks_end(lines: list[str], i: int) -> int:
    """Find the end of a paragraph and of those right below it that mention editing."""
    end = _next_blank(lines, i)
    while (start := end + 1) < len(lines) and lines[start].strip():
        stop = _next_blank(lines, start)
        if not mentions_editing(_collapse(lines[start:stop])):
            break
        end = stop
    return end


def _is_blank_or_divider(line: str) -> bool:
    return not line.strip() or is_divider(line) is not None


def _skip(lines: list[str], start: int, condition: Callable[[str], object]) -> int:
    """Skip the lines from ``start`` on that meet a condition; return the line after them."""
    while start < len(lines) and condition(lines[start]):
        start += 1
    return start


def _next_filled(lines: list[str], start: int) -> int:
    return _skip(lines, start, lambda line: not line.strip())


def _next_blank(lines: list[str], start: int) -> int:
    return _skip(lines, start, str.strip)


def _filled(lines: list[str], start: int, stop: int) -> Iterator[tuple[int, str]]:
    """Yield each non-blank line's index, and its text joined with the next: markers can wrap."""
    for i in range(start, stop):
        if lines[i].strip():
            yield i, _collapse(lines[i : i + 2])


def _paragraphs(lines: list[str]) -> list[str]:
    return [_collapse(lines[start:stop]) for start, stop in _paragraph_spans(lines)]


def _paragraph_spans(lines: list[str], start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the first line of each paragraph (a run of non-blank lines) and the line after it."""
    while (top := _next_filled(lines, start)) < len(lines):
        start = _next_blank(lines, top)
        yield top, start


def _paragraph_above(lines: list[str], start: int) -> tuple[int, int]:
    """Find where the last paragraph before ``start`` begins and ends; 0, 0 if there is none."""
    stop = start
    while stop and not lines[stop - 1].strip():
        stop -= 1
    top = stop
    while top and lines[top - 1].strip():
        top -= 1
    return top, stop


def _collapse(lines: list[str]) -> str:
    """Join lines and collapse whitespace."""
    return " ".join(" ".join(lines).split())


def _trim(lines: list[str]) -> list[str]:
    """Drop blank lines at both ends."""
    return lines[_next_filled(lines, 0) : _paragraph_above(lines, len(lines))[1]]
