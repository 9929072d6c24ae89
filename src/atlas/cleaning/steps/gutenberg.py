"""Strip Project Gutenberg's headers, footers, credits and transcriber's notes from books.

A book consists of a header, credits, text, and a footer, and a file can hold several books. Over
fifty years these parts took many forms, listed here as patterns, each with an example and without
titles or authors. A pattern is matched against the start of a line or paragraph after whitespace is
collapsed, ignoring case and any stars, brackets or quotes around it. Text that matches nothing
belongs to a book, and a text without a header or a footer is not a Gutenberg book.

Transcriber's notes come in brackets, in boxes, under headings, or as paragraphs.
"""

import io
import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

WINDOW = 1 << 16  # characters searched for a header: they reach 18 kB
HEADER_OPENING = 3  # first paragraphs; at least one must be a known header paragraph
MAX_ABOVE_HEADER = 500  # characters above that one
MAX_PARAGRAPH = 5000  # characters; longer ones belong to a book
MAX_MARKER_LINES = 4  # of a marker wrapped by a long title
MAX_HEADER_GAP = 3000  # characters of unknown paragraphs in a row within a header
MAX_TITLES = 6  # of one header
MAX_TITLE_GAP = 150  # characters of unknown paragraphs between them
MAX_CREDIT_LINES = 25
MAX_WEB_CREDIT_LINES = 8  # of a credit recognized only by a web address
END_LINES = 12  # from an end line to the first mention of Project Gutenberg below it
MAX_LICENSE_LINES = 30  # of a paragraph
MAX_FOOTER_GAP = 12  # paragraphs in a row that only sound like a license

MAX_BRACKET_LINES = 200  # of a note in brackets
MAX_HEADING_LINES = 60  # of a note under a heading, within a book
MAX_HEADING_WORDS = 3  # after the name of a note in its heading
MAX_CLOSING_LINES = 120  # of notes after a book, at most half of its lines
MAX_CLOSING_SHARE = 0.1  # share of the lines of a long book
EVIDENCE_LINES = 15  # after an address to the reader, which must mention the file

VERB = (
    r"(?:produced|prepared|perpared|transcribed|scanned|typed|keyed|digiti[sz]ed|converted"
    r"|proof(?:ed|read)|created|provided|submitted|contributed|updated|donated|encoded)"
)
GUTENBERG = r"(?:copyrighted )?(?:[\w ]+/)?project gutenberg"
ETEXT = r"e-?(?:text|book)"
# Also as UTF-8 read as Latin-1, for book_starts().
APOSTROPHE = "(?:['\u2019]|\u00e2\u0080\u0099)"
BOM = "\u00ef\u00bb\u00bf"


def _starts_with(*patterns: str, max_length: float = math.inf) -> Callable[[str], bool]:
    pattern = re.compile(rf"[\W_]*(?:{'|'.join(patterns)})", re.IGNORECASE)
    return lambda text: len(text) <= max_length and pattern.match(text) is not None


def _contains(*patterns: str) -> Callable[[str], bool]:
    pattern = re.compile("|".join(patterns), re.IGNORECASE)
    return lambda text: len(text) <= MAX_PARAGRAPH and pattern.search(text) is not None


def _any_of(*predicates: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda text: any(predicate(text) for predicate in predicates)


# The last line of a header.
is_start = _starts_with(
    rf"(?:start|beginning) of (?:the |this )?{GUTENBERG}",  # *** START OF THE PROJECT GUTENBERG ...
)
is_small_print_end = _starts_with(
    r"end\W*(?:of )?(?:the\W+)?small\W+print",  # *END*THE SMALL PRINT! FOR PUBLIC DOMAIN ...
    r"small print!.*\*end\*",  # *SMALL PRINT! Ver.03.17.93*END*
    r"small print\W+v\.",  # ["Small Print" V.12.08.93]
)
is_rights_end = _starts_with(r"tells you about restrictions in how the file may be used")

# The first line of a footer.
is_bold_end = _starts_with(
    rf"(?<=\*) ?end of (?:the |this )?{GUTENBERG}",  # *** END OF THE PROJECT GUTENBERG EBOOK ...
)
is_plain_end = _starts_with(
    # End of Project Gutenberg's ...   The end of this etext   This is the end of the Project ...
    r"(?-i:(?:This is |You have reached )?(?:[Tt]he |THE )?E(?:nd|ND)"
    r"|(?:This is t|You have reached t|T)he end)"
    rf"(?: (?:of|if) ?(?:the |this |an? )?(?:is )?(?:{GUTENBERG}|{ETEXT}\b)"
    rf"| project gutenberg {ETEXT}\b)",
    rf"(?-i:Ende) diese[rs]? (?:pro[jy]e[ck]t gutenberg|{ETEXT})",  # Ende dieses Projekt Gutenberg
    r"(?-i:Fine?|Einde|Fim) (?:d\w+ |van |het )*pro\w+ gutenberg",  # Fin de Project Gutenberg
    r"more information about this book is at the top of this file",
    rf"this is a {GUTENBERG} {ETEXT}, details above",
)
is_end = _any_of(is_bold_end, is_plain_end)
is_small_print = _starts_with(
    r"start\W*(?:of )?(?:the\W+)?small\W+print",  # ***START**THE SMALL PRINT!**FOR ...
)
is_license = _starts_with(
    r"updated editions will replace",
    r"creating the works from (?:public domain )?print editions",
    r"start: full license",
    r"the full project gutenberg license",
    r"section 1\. +general terms of use and redistributing",
)
is_footer = _any_of(
    is_small_print,
    is_license,
    _starts_with(
        r"this file should be named",  # ***** This file should be named 1065.txt or 1065.zip *****
        r"project gutenberg (?:of )?australia\W*$",
    ),
)
mentions_license = _contains(r"gutenberg", rf"\b{ETEXT}", r"\belectronic works?\b", r"\bpglaf\b")
sounds_like_license = _contains(
    r"^\W*(?:section \d|\d\.[a-f]\.|$)",
    r"briefest record|fund raising|all 50 states|prof\. hart|small print|\(three pages",
    r"have received",
    r"\b(?:copyright|licen[sc]e|donat|trademark|warrant|disclaim|liab|(?:re)?distribut|refund|defect)",
    r"\b(?:foundation|royalt|charit|volunteer|permission|contribut|download"
    r"|contact|filenames?|newsletter|versions|proofread)",
    r"\b(?:ftp|files?|tax|laws?|public domain|e-?mail|site)\b|https?:|www\.|@|\d{4}",
)
is_clause = _starts_with(  # of a license; doesn't open a footer
    r"please read this before you (?:distribute|use)",
    r"section \d\.? +(?:general terms of use|information about)",
    r"1\.[A-F]\.(?:\d\.)? ",
)
is_legal = _contains(r"\b(?:licen[sc]e|copyright|trademark|donation)")
is_about_license = _any_of(is_footer, mentions_license, sounds_like_license)

# Paragraphs of a header.
is_title = _starts_with(
    r"(?:(?:this|the|is|a|an|of|copyrighted|\d+\w\w|first|second|third|\w+ \d{4}) )*"
    # The Project Gutenberg EBook of ..., by ...   *** A Project Gutenberg of Australia eBook ***
    rf"project gutenberg(?:{APOSTROPHE}s|,)? (?:of australia )?"
    rf"(?:{ETEXT}\b|(?:release|edition) of\b)",
    rf"project gutenberg{APOSTROPHE}s (?!.*[.!?:;]$)"  # ... ..., by ...; a sentence is no title
    r"|(?:(?:this|the|is|a|an|of) )*project gutenberg(?: of)? australia\b",
    # This is the 100th Etext file presented by Project Gutenberg, and is presented in ...
    rf"(?:this|the|is) .{{0,30}}\b{ETEXT} .{{0,30}}\b(?:by|from) project gutenberg",
    rf"\S.{{0,80}}--\s*this is the project gutenberg {ETEXT}",
    max_length=300,  # longer paragraphs are prose about Project Gutenberg
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
    r"start\W*(?:of )?(?:the\W+)?small\W+print",
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
    # Scanned and proofed by ...
    rf"{VERB}(?:(?: ?, ?(?:and )?| and | ?& ?){VERB})* (?:by|from|for|with)\b",
    rf"(?:this |the )?(?:project gutenberg )?(?:{ETEXT}|html|(?:electronic|digital) \w+|file|text"
    rf"|book|edition) (?:(?:version|edition) )?(?:(?:was|is|has been) )?(?:\w+, )*(?:\w+ )?{VERB}"
    r"(?:\b.{0,40}?) (?:by|from|with)\b",  # This etext was produced from the 1908 edition by ...
    rf"(?:{ETEXT}|html(?: (?:version|edition|file)s?)?) by\b",  # HTML version by ...
    r"credits ?:",  # Credits: ...
    r"special thanks\b",  # Special thanks are due to ...
    r"this file was first posted|(?:most recently|last|date last) updated",  # [Last updated: ...]
    rf"portions of this (?:{ETEXT}|header)",  # [Portions of this header are copyright ...
    r"(?:pr(?:oduit|\w+par\w+)|produziert|erstellt|producido|preparado|prodotto|preparato|produzido"
    r"|vervaardigd|geproduceerd|framst\w+lld|fremstillet) (?:par|von|por|d[ao]i?|door|av|af)\b"
    r"|tuottan(?:ut|eet)\b",  # Produit par ...   Erstellt von ...
)
is_known_paragraph = _any_of(is_header_paragraph, is_credit, mentions_gutenberg)
mentions_web = _contains(  # thanks and sources, never on the title page of an old book
    r"https?://|\bwww[.:]|\w@[\w.-]{1,80}\.\w|\bpgdp\b",
    r"distributed proofread|internet archive|gallica\.bnf",
)
is_thanks = _starts_with(r"(?:\w+ ){0,4}thanks?\b", r"we (?:\w+ ){0,4}thank\b")
mentions_scan = _contains(
    rf"\bproof|\bscan|\btranscri|\b{ETEXT}|\bOCR\b|\bdigiti|\btyp(?:ing|ed)\b|gutenberg"
)
is_html_note = _starts_with(  # Note: Project Gutenberg also has an HTML version of this file
    r"(?:editorial )?note: .*(?:project gutenberg|html version|images of the original)",
)

# Headings of transcriber's notes.
NOTE_NAME = re.compile(
    rf"""[\W_]*(?:
    (?:original\ )?transcri(?:b|pt)(?:er|or|ion)['\u2019]?s?['\u2019]?\ (?:end\ ?|foot)?
        (?:notes?|comments?|remarks?|corrections?|errata|changes)   # Transcriber's Note
    | (?:proof(?:read)?er|digiti[sz]er|producer)['\u2019]?s?['\u2019]?\ (?:notes?|comments?)
    | notes?\ (?:by|from|of|on|to)\ (?:the\ )?transcri(?:b|pt)\w+   # Note by the Transcriber
    | (?:a\ )?notes?\ (?:on|about|from|to)\ (?:this|the)\ (?:{ETEXT}|electronic\ \w+|digiti[sz]er)
    | (?:errata|corrections?|errors?|changes)\ (?:\w+\ ){{0,3}}by\ (?:the\ )?transcriber
    | (?:e-?text|redactor['\u2019]s)\ notes?                        # Redactor's Note
    | information\ about\ this\ e-?text\ edition
    | typographical\ errors\ corrected
    | (?:not[aes]{{1,2}}|remarques?)\ (?:sur\ )?(?:d?[eaiou]{{0,2}}l?\ )?(?:d['\u2019])?
        (?:l[ae]\ )?tra(?:n)?scri\w+         # Note du transcripteur, Nota del trascrittore
    | (?:anmerkung|hinweis|bemerkung|notiz)(?:en|e)?\ (?:zu[rm]?|de[rs])\ (?:transkri|bearbeit)\w+
    | (?:opmerking(?:en)?|noo?ten?)\ van\ de\ (?:bewerker|transcri)\w*
    )(?P<rest>.*)""",
    re.IGNORECASE | re.VERBOSE,
)
may_be_note = re.compile(  # a quick check of every line
    r"[^\w|+]*_*(?:[|+]|original|tran?s[ck]ri|proof|digiti|producer|an? note|note|errata|correct"
    r"|error|changes|e-?text|redactor|information|typograph|not[ae]|remarque|anmerk|hinweis|bemerk|notiz"
    r"|opmerk|noot|au lect|to the reader|an den leser|this |i have|page )",
    re.IGNORECASE,
).match
is_errata = _starts_with(  # of the person who typed the book, without a heading
    r"(?:note: )?i have (?:also )?(?:made the following (?:changes|corrections)|(?:closed|joined)"
    r" contractions|omitted the running heads)",
    r"page (?:(?:para|chapter|paragraph|col)\.? )*line original(?:ly)? changed to",
)
is_address = _starts_with(r"au lecteur\W*$", r"to the reader\W*$", r"an den leser\W*$")
mentions_file = _contains(  # distinguishes it from an author's address to the reader
    r"transcri|transkri|livre \wlectronique|italiques? dans l.original|erreurs? typograph",
    r"\be-?(?:text|book)",
)
is_file_note = re.compile(  # [This text is intended for users whose text readers cannot use ...
    rf"\[this (?:{ETEXT}|text|file|version) (?:is|was|has|comes|uses|includes)\b", re.IGNORECASE
).match
# A paragraph right above or below the text: The listed errata have been corrected.
is_remark = _starts_with(
    r"(?:(?:all|any|a few|the|these|other|some|several|many|most|minor|obvious|listed|following"
    r"|noted|inconsistent|variant|archaic|unusual|original|apparent|evident)\W+(?:and )?){0,4}"
    r"(?:errata|errors?|typos|typograph\w+|misprints?|spellings?|hyphenat\w+|punctuation"
    r"|inconsistenc\w+|footnotes?|page numbers|italics|accents|illustrations|corrections)\b"
    r".{0,200}? (?:has|have|was|were|are|is) (?:also |all )?(?:been )?(?:silently |left )?"
    r"(?:correct|retain|preserv|mov|kept|fix|standardi|regulari|moderni|normali|amend|chang|remov|omit|mark|indicat"
    r"|represent|unchanged|as in|noted|relocat|renumber|made\b)",
    max_length=1500,
)
mentions_editing = _contains(
    r"\boriginal\b|\bitalics?\b|\bspelling|\bhyphen|\btypo|\bcorrected\b|\bpunctuation",
    r"\bunderscore|\bascii\b|\butf-8|\bunicode|\be-?(?:text|book)|transcri",
)
is_divider = re.compile(r"\s*(?:[*\-=_~+]\s*){3,}").fullmatch


HEADER, FOOTER, CREDITS = "gutenberg_header", "gutenberg_footer", "gutenberg_credits"
NOTES, BLANK_LINES, TEXT = "transcriber_notes", "blank_lines", "text"
Part = tuple[str, int, int]  # kind, first line, line after it


@dataclass(frozen=True)
class Book:
    """A book without Project Gutenberg's additions, its lines unchanged."""

    text: str  # from the first to the last non-blank line of the book
    removed: Counter[str]  # characters by kind; those of all books and their texts add up
    notes: int = 0  # number of transcriber's notes removed


def strip_gutenberg(text: str, notes: bool) -> list[Book]:
    r"""Extract the books from a text; any other text is returned as it is.

    The text has ``\n`` line ends; ``notes`` also removes transcriber's notes.
    """
    if not _mentions_name(text):
        return [Book(text, Counter())]
    lines = _lines(text)
    books = list(_books(lines))
    if len(books) == 1 and all(kind == TEXT for kind, _, _ in books[0]):
        return [Book(text, Counter())]
    return [_strip(lines, parts, notes) for parts in books]


def book_starts(data: bytes) -> list[int]:
    """Find where books begin in the bytes of a text, after the first one.

    The bytes can be in several encodings, as long as these contain ASCII.
    """
    if b"utenberg" not in data and b"UTENBERG" not in data:
        return []
    text = data.decode("latin-1").replace(BOM, "   ").replace("\r\n", " \n").replace("\r", "\n")
    lines = _lines(text)
    tops = [parts[0][1] for parts in _books(lines)]
    offsets = [0, *accumulate(map(len, lines))]
    return [offsets[top] for top in tops[1:]]


def _mentions_name(text: str) -> bool:
    return "utenberg" in text or "UTENBERG" in text


def _lines(text: str) -> list[str]:
    r"""Split a text into lines that keep their ``\n``."""
    return list(io.StringIO(text, newline="\n"))


def _strip(lines: list[str], parts: list[Part], notes: bool) -> Book:
    removed = Counter[str]()
    text: list[str] = []
    for kind, start, stop in parts:
        if kind == TEXT:
            text += lines[start:stop]
        else:
            removed[kind] += _size(lines[start:stop])
    body, count = _trim(text, removed), 0
    if notes:
        kept, count = _remove_notes(body)
        removed[NOTES] = _size(body) - _size(kept)
        start = _credits_end(kept, 0) if count else 0
        removed[CREDITS] += _size(kept[:start])
        body = _trim(kept[start:], removed)
    return Book("".join(body), +removed, count)


def _size(lines: list[str]) -> int:
    return sum(map(len, lines))


def _trim(lines: list[str], removed: Counter[str]) -> list[str]:
    """Drop and count blank lines at both ends."""
    start, stop = _next_filled(lines, 0), _paragraph_above(lines, len(lines))[1]
    removed[BLANK_LINES] += _size(lines[:start]) + _size(lines[max(start, stop) :])
    return lines[start:stop]


def _books(lines: list[str]) -> Iterator[list[Part]]:
    """Divide all lines into books, each a list of parts in order."""
    mentions = [i for i, line in enumerate(lines) if "utenberg" in line or "UTENBERG" in line]
    first = _first_header(lines)
    headers = [(0, first), *_inner_headers(lines, mentions, first)]
    limits = [*(top for top, _ in headers[1:]), len(lines)]
    if not first:
        headers[0] = 0, _header_end(lines[: limits[0]])
    for (top, end), limit in zip(headers, limits, strict=True):
        below = mentions[bisect_left(mentions, top) : bisect_left(mentions, limit)]
        for parts in _books_below(lines[top:limit], [i - top for i in below], end - top):
            yield [(kind, top + start, top + stop) for kind, start, stop in parts]


def _first_header(lines: list[str]) -> int:
    """Find the line after the header below a title at the start of a text, or 0."""
    for top, _ in islice(_paragraph_spans(lines), HEADER_OPENING):
        if _size(lines[:top]) > MAX_ABOVE_HEADER or is_end(_collapse(lines[top : top + 2])):
            break
        if _starts_book(lines, top):
            return _header_below(lines, top)
    return 0


def _inner_headers(lines: list[str], mentions: list[int], first: int) -> Iterator[tuple[int, int]]:
    """Find headers below other text; yield the first line of each and the line after it."""
    found = first > 0 or _header_end(lines) > 0
    start = _credits_end(lines, first) if first else 1
    for mention in mentions:
        if mention < start:
            continue
        top, end = _header_at(lines, mention, found, start)
        if end:
            yield top, end
            start, found = _credits_end(lines, end), True


def _header_at(lines: list[str], i: int, found: bool, start: int) -> tuple[int, int]:
    """Find the header whose title or start marker is in line ``i``; 0, 0 if there is none.

    After a first header, others need no title. No header begins before ``start``.
    """
    for top in (i, i - 1):  # a name can wrap
        pair = _collapse(lines[top : top + 2])
        if top >= start and is_title(pair) and not is_end(pair):
            end = _header_below(lines, top)
            return (_header_top(lines, top, start) if end else top), end
    line = _collapse(lines[i : i + 2])
    if not (found and line.startswith("***") and is_start(line)):
        return 0, 0
    top = i
    while True:
        above, stop = _paragraph_above(lines, top)
        paragraph = _collapse(lines[above:stop])
        if above < start or is_end(paragraph) or not is_header_paragraph(paragraph):
            return top, _marker_end(lines, i)
        top = above


def _header_top(lines: list[str], title: int, start: int) -> int:
    """Find the first line of a header whose license or metadata begins above its title."""
    top = above = title
    gap = 0
    while above > start:
        above, stop = _paragraph_above(lines, above)
        paragraph = _collapse(lines[above:stop])
        if not paragraph or above < start:
            break
        if _any_of(is_end, is_footer, is_clause, is_small_print_end)(paragraph):
            # The header can follow without a blank line.
            pairs = (_collapse(lines[i : i + 2]) for i in range(above + 1, stop))
            return next((i for i, pair in enumerate(pairs, above + 1) if is_licence(pair)), top)
        if is_header_paragraph(paragraph):
            top, gap = above, 0
        elif not mentions_gutenberg(paragraph):
            gap += len(paragraph)
            if gap > MAX_TITLE_GAP:
                break
    return top


def _header_below(lines: list[str], title: int, check_footer: bool = True) -> int:
    """Find the line after the header below a title within a text, or 0 if it doesn't have one.

    Stricter than at the start of a text: an error would remove text of the book above. A small
    print with a header right below it is a footer, which ``check_footer`` looks for.
    """
    end = known = count = gap = size = titles = 0
    certain = in_small_print = resumed = False
    whole = only_names = True
    for top, stop in _paragraph_spans(lines, title):
        size += _size(lines[top:stop])
        if size > WINDOW:
            break
        for i, line in _filled(lines, top, stop):
            if is_start(line):
                return _marker_end(lines, i)
            if is_end(line) or is_license(line):
                return end or (known if certain and count > 1 else 0)
            if is_small_print_end(line):
                below = _next_filled(lines, _small_print_end(lines, i))
                is_at_end = check_footer and (
                    below == len(lines)
                    or (
                        is_title(_collapse(lines[below : below + 2]))
                        and _header_below(lines, below, check_footer=False)
                    )
                )
                if is_at_end:
                    return known if certain and count > 1 else 0
                end, in_small_print = _small_print_end(lines, i), False
            elif is_rights_end(line):
                end = i + 1
        paragraph = _collapse(lines[top:stop])
        if is_title(paragraph):
            titles += 1
            is_same = gap <= MAX_TITLE_GAP and (whole or resumed or only_names)
            if not is_same or titles > MAX_TITLES:
                break  # the header starts there; the title above belongs to the text above
        if end and is_small_print(paragraph):
            break  # of the next header
        in_small_print = in_small_print or is_small_print(paragraph)
        if in_small_print or is_known_paragraph(paragraph) or top < end:
            gap = 0
            if whole:
                known, count = stop, count + 1
                certain = certain or is_licence(paragraph) or has_number(paragraph)
            resumed = resumed or (not whole and is_header_paragraph(paragraph))
        else:
            whole = False
            only_names = only_names and paragraph[-1].isalnum()
            gap += len(paragraph)
            if end or gap > MAX_HEADER_GAP:
                break
    if not end and certain and count > 1:  # a header without a marker
        end = known
    return end


def _starts_book(lines: list[str], i: int) -> bool:
    return is_header_paragraph(_collapse(lines[i : i + 2])) and _header_below(lines, i) > 0


def _header_end(lines: list[str]) -> int:
    """Find the first line after the header at the start of a text, or 0."""
    small_print = rights = 0
    for i, line in _filled(lines, 0, _lines_in_window(lines, 0)):
        if is_start(line) and _is_header(lines[:i]):
            return _marker_end(lines, i)
        if is_start(line) or is_end(line):
            break
        if is_small_print_end(line):
            small_print = small_print or _small_print_end(lines, i)
        if is_rights_end(line):
            rights = rights or i + 1
    if _starts_header(_paragraphs(lines[:rights])):
        return rights
    at_the_end = not any(map(str.strip, lines[small_print:]))  # of the file: a footer
    if _starts_header(_paragraphs(lines[:small_print])) and not at_the_end:
        return small_print
    return _header_without_marker(lines)


def _lines_in_window(lines: list[str], start: int) -> int:
    """Count the lines within ``WINDOW`` characters."""
    count = characters = 0
    for line in islice(lines, start, None):
        characters += len(line)
        if characters > WINDOW:
            break
        count += 1
    return count


def _is_header(lines: list[str]) -> bool:
    """Check that the lines before a start marker are empty or mostly known header paragraphs."""
    paragraphs = _paragraphs(lines)
    known = sum(map(is_known_paragraph, paragraphs))
    return not paragraphs or (_starts_header(paragraphs) and 2 * known >= len(paragraphs))


def _starts_header(paragraphs: list[str]) -> bool:
    opening = paragraphs[:HEADER_OPENING]
    first = next((i for i, each in enumerate(opening) if is_header_paragraph(each)), None)
    return first is not None and sum(map(len, opening[:first])) <= MAX_ABOVE_HEADER


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


def _small_print_end(lines: list[str], i: int) -> int:
    wrapped = "*end*" in _collapse(lines[i + 1 : i + 2]).lower()
    return i + 2 if wrapped else i + 1


def _books_below(lines: list[str], mentions: list[int], header: int) -> Iterator[list[Part]]:
    """Divide lines with a header of ``header`` lines: text below a footer is another book."""
    top = 0
    while top < len(lines):
        start, parts = header, [(HEADER, top, header)]
        while True:
            credits, footer, stop = _find_footer(lines, mentions, start, header > top)
            is_book = header > top or stop > footer or len(parts) > 1
            text = _credits_end(lines[:credits], start) if is_book and start == header else start
            parts += [(CREDITS, start, text), (TEXT, text, credits)]
            parts += [(CREDITS, credits, footer), (FOOTER, footer, stop)]
            below = _next_filled(lines, stop)
            if below == len(lines) or _note_end(lines, below) is None:
                break
            start = stop  # a note below the footer belongs to the book
        if below == len(lines):
            parts.append((BLANK_LINES, stop, below))
            stop = below
        yield [(kind, start, stop) for kind, start, stop in parts if start < stop]
        top, header = stop, stop + _header_end(lines[stop:])


def _find_footer(
    lines: list[str], mentions: list[int], start: int, has_header: bool
) -> tuple[int, int, int]:
    """Find the first footer: credits right above it, its first line, and the line after it."""
    for i, line in _lines_near(lines, mentions, start):
        if is_end(line):
            is_found = _ends_book(lines, i, trusted=has_header)
        elif is_footer(line):
            is_found = has_header or any(
                is_footer(other) for _, other in _lines_near(lines, mentions, i + 1)
            )
        else:
            is_found = has_header and is_title(line) and _is_last_paragraph(lines, i)
        if is_found:
            return _credits_above(lines, start, i), i, _footer_end(lines, i)
    return len(lines), len(lines), len(lines)


def _lines_near(lines: list[str], mentions: list[int], start: int) -> Iterator[tuple[int, str]]:
    """Yield the lines that can be in a footer: near a mention, or at the end of the text."""
    for mention in [*mentions[bisect_left(mentions, start) :], len(lines)]:
        yield from _filled(lines, max(start, mention - END_LINES), min(mention + 1, len(lines)))
        start = max(start, mention + 1)


def _is_last_paragraph(lines: list[str], i: int) -> bool:
    return _next_filled(lines, _next_blank(lines, i)) == len(lines)


def _ends_book(lines: list[str], i: int, trusted: bool) -> bool:
    """Check that a footer, a note or nothing follows an end line; ``trusted`` stars suffice."""
    is_bold = is_bold_end(_collapse(lines[i : i + 2]))
    if trusted and is_bold:
        return True
    below = _next_filled(lines, _next_blank(lines, i))
    paragraph = _collapse(lines[below : _next_blank(lines, below)])
    return not paragraph or (
        mentions_license(paragraph)
        or is_footer(paragraph)
        or _note_end(lines, below) is not None
        or (is_bold and all(map(is_legal, _paragraphs(lines[below:]))))
    )


def _credits_above(lines: list[str], start: int, footer: int) -> int:
    """Find the first line of credits right above a footer."""
    while True:
        top, stop = _paragraph_above(lines, footer)
        top = max(top, start)
        above = _collapse(lines[top:stop])
        if not (is_credit(above) and mentions_web(above) and stop - top <= MAX_CREDIT_LINES):
            return footer
        footer = top


def _footer_end(lines: list[str], start: int) -> int:
    """Find the line after the last paragraph about Project Gutenberg or its license."""
    is_end_line = _any_of(is_end, is_title)(_collapse(lines[start : start + 2]))
    end = _end_of_end_line(lines, start) if is_end_line else start + 1
    gap = 0
    for top, stop in _paragraph_spans(lines, end if is_end_line else start):
        if stop <= end:  # within the small print
            continue
        paragraph = _collapse(lines[top:stop])
        if is_small_print(paragraph) and (last := _last_line_of_small_print(lines, top)):
            end, gap = last, 0
        elif _any_of(mentions_license, is_footer, is_clause)(paragraph):
            end, gap = _license_end(lines, top, stop), 0
        elif (sounds_like_license(paragraph) or is_credit(paragraph)) and gap < MAX_FOOTER_GAP:
            gap += 1
        else:
            break
    else:  # only a license is left
        rest = _paragraphs(lines[end:])
        return len(lines) if rest and all(map(is_legal, rest)) else end
    return end


def _license_end(lines: list[str], top: int, stop: int) -> int:
    """Find the line after a paragraph of a license; text can follow without a blank line."""
    end = top + 1
    for i in range(top, min(stop, top + MAX_LICENSE_LINES)):
        if mentions_license(lines[i]) or (end == i and is_about_license(lines[i])):
            end = i + 1
    last_word = lines[end - 1].split()[-1]
    in_sentence = last_word[-1].islower() or last_word[-1] in ",;-"
    return stop if in_sentence and stop - end <= MAX_LICENSE_LINES else end


def _end_of_end_line(lines: list[str], start: int) -> int:
    stop = _next_blank(lines, start)
    is_bold = is_bold_end(_collapse(lines[start : start + 2]))
    is_whole = not is_bold or lines[stop - 1].rstrip().endswith("*")
    return stop if is_whole and stop - start <= MAX_MARKER_LINES else _marker_end(lines, start)


def _last_line_of_small_print(lines: list[str], start: int) -> int:
    """Find the line after the small print that starts in line ``start``; 0 if it has no end."""
    for i, line in _filled(lines, start + 1, start + _lines_in_window(lines, start)):
        if is_small_print_end(line):
            return _small_print_end(lines, i)
    return 0


def _credits_end(lines: list[str], start: int) -> int:
    """Find the line after the credits at ``start``, or ``start`` if there are none.

    Credits can stand between dividers.
    """
    end = start
    opened = closed = False
    for top, stop in _paragraph_spans(lines, start):
        paragraph, count = _collapse(lines[top:stop]), stop - top
        if is_divider(paragraph) and not closed:
            closed = opened and end > start
            opened = True
            end = stop if closed else end
            continue
        named = is_credit(paragraph) or is_html_note(paragraph)
        named = named or (is_thanks(paragraph) and mentions_scan(paragraph))
        linked = mentions_web(paragraph) and count <= MAX_WEB_CREDIT_LINES
        is_credits = is_title(paragraph) or linked or (named and count <= MAX_CREDIT_LINES)
        if not is_credits or _note_end(lines, top) is not None:
            break
        end = stop
    return end


def _remove_notes(lines: list[str]) -> tuple[list[str], int]:
    """Remove and count transcriber's notes; also remove dividers next to them at both ends."""
    kept: list[str] = []
    count = i = end = 0
    last = _paragraph_above(lines, len(lines))[0]
    starts = sorted({last, len(lines), *(i for i, each in enumerate(lines) if may_be_note(each))})
    while i < len(lines):
        end = _note_end(lines, i) or i
        is_remark_here = not kept or i == last
        if end == i and is_remark_here and is_remark(_collapse(lines[i : _next_blank(lines, i)])):
            end = _section_end(lines, i - 1)
        if end == i:
            following = starts[bisect_right(starts, i)]
            kept += lines[i:following]
            i = following
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
    if not may_be_note(line):
        return None
    following = lines[i + 1] if i + 1 < len(lines) else ""
    rest = _text_after_name(lines, i)
    boxed = line.startswith("+") and NOTE_NAME.match(_collapse([following]))
    if boxed or (rest is not None and line.startswith("|")):  # lines of + - and |
        return _skip(lines, i, lambda line: line.lstrip().startswith(("|", "+")))
    if is_file_note(line):
        return _bracket_end(lines, i)
    max_lines = max(MAX_CLOSING_SHARE * len(lines), min(MAX_CLOSING_LINES, len(lines) / 2))
    closes_book = i > 0 and len(lines) - i <= max_lines
    if is_errata(_collapse([line, following])) and (i == 0 or not lines[i - 1].strip()):
        return len(lines) if closes_book else _section_end(lines, i - 1)
    if rest is None:
        return None
    alone = not any(map(str.isalnum, rest))
    if line.startswith("[") and not (alone and line.endswith("]")):  # [Transcriber's Note: ...]
        return _bracket_end(lines, i)
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
