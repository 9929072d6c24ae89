import csv
import gzip
from collections import Counter
from itertools import cycle, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atlas.cleaning.clean import clean_item
from atlas.cleaning.reading.pieces import Notes
from atlas.cleaning.reading.read import plan, read_piece
from atlas.cleaning.reading.streams import MAX_BLOCK
from atlas.cleaning.steps.gutenberg import book_starts, strip_gutenberg
from atlas.cleaning.steps.unicode import fix_mojibake, normalize
from atlas.corpora.manifest import RawFile
from tests.cleaning.steps import gutenberg_books as books
from tests.small import CORPORA, small_params

ORACLE = CORPORA / "gutenberg_oracle.csv"
ROWS = list(csv.DictReader(ORACLE.open(encoding="utf-8"))) if ORACLE.is_file() else []


def only_book(text, notes=False):
    """Strip a text that holds one book; every character is in it or counted."""
    (book,) = strip_gutenberg(text, notes)
    assert len(book.text) + book.removed.total() == len(text)
    return book


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=[row["file"] for row in ROWS])
def test_real_books(corpora, row, strict):
    data = (corpora / "gutenberg" / row["file"]).read_bytes()
    text = data.decode(row["encoding"]).replace("\r\n", "\n")
    columns = ("strict_start_line", "strict_end_line") if strict else ("start_line", "end_line")
    first, last = (int(row[column]) for column in columns)
    body = text.split("\n")[first - 1 : last]
    assert only_book(text, notes=strict).text == "\n".join(body) + "\n"


def stripped(header="modern", credit="none", body="prose", note=("none", "none"), end="modern"):
    before, after = (books.NOTES[name] for name in note)
    text = books.file_of(
        books.HEADERS[header],
        books.CREDITS[credit],
        before,
        books.BODIES[body],
        after,
        books.ENDS[end],
    )
    return only_book(text, notes=False), only_book(text, notes=True)


def kinds(book):
    return {kind for kind in book.removed if kind != "blank_lines"}


def body_with_notes(body, note):
    parts = [books.NOTES[note[0]], books.BODIES[body], books.NOTES[note[1]]]
    return books.GAP.join(part.strip("\n") for part in parts if part) + "\n"


@settings(max_examples=400)
@given(
    st.sampled_from(sorted(books.HEADERS)),
    st.sampled_from(sorted(books.CREDITS)),
    st.sampled_from(sorted(books.BODIES)),
    st.tuples(st.sampled_from(sorted(books.NOTES)), st.sampled_from(sorted(books.NOTES))),
    st.sampled_from(sorted(books.ENDS)),
)
def test_any_header_with_any_credit_note_and_end(header, credit, body, note, end):
    assume(header != "none" or end not in books.FAINT_ENDS)
    loose, strict = stripped(header, credit, body, note, end)
    assert loose.text == body_with_notes(body, note)
    assert strict.text == books.BODIES[body].strip("\n") + "\n"
    assert ("gutenberg_header" in loose.removed) == (header != "none")
    assert ("gutenberg_footer" in loose.removed) == (end != "none")
    assert "transcriber_notes" not in loose.removed
    assert strict.notes == sum(name != "none" for name in note)


@pytest.mark.parametrize("body", sorted(books.BODIES))
@pytest.mark.parametrize("end", sorted(set(books.ENDS) - books.FAINT_ENDS))
def test_each_end_without_a_header(end, body):
    loose, strict = stripped(header="none", body=body, end=end)
    assert loose == strict
    assert loose.text == books.BODIES[body].strip("\n") + "\n"


@pytest.mark.parametrize("header", sorted(books.HEADERS))
def test_each_header(header):
    loose, strict = stripped(header=header)
    assert loose == strict
    assert loose.text == books.BODIES["prose"]


@pytest.mark.parametrize("credit", sorted(books.CREDITS))
def test_each_credit(credit):
    loose, _ = stripped(credit=credit)
    assert loose.text == books.BODIES["prose"]
    credits = set() if credit == "none" else {"gutenberg_credits"}
    assert kinds(loose) == {"gutenberg_header", "gutenberg_footer"} | credits


@pytest.mark.parametrize("end", sorted(books.ENDS))
def test_each_end(end):
    loose, _ = stripped(end=end)
    assert loose.text == books.BODIES["prose"]
    footer = set() if end == "none" else {"gutenberg_footer"}
    assert kinds(loose) == {"gutenberg_header"} | footer


@pytest.mark.parametrize("note", sorted(set(books.NOTES) - {"none"}))
@pytest.mark.parametrize("where", ["before", "after"])
def test_each_note(note, where):
    loose, strict = stripped(note=(note, "none") if where == "before" else ("none", note))
    assert "prose" not in loose.text
    assert loose.text != books.BODIES["prose"]
    assert strict.text == books.BODIES["prose"]
    assert strict.notes == 1
    assert kinds(strict) == {"gutenberg_header", "gutenberg_footer", "transcriber_notes"}


def test_notes_in_the_middle():
    body = [
        "Orsin opened the gate.",
        "[Transcriber's note: the page is torn here.\nTwo words are missing.]",
        "He closed it [Transcriber's note: sic] again.",
        "+-----------------------+\n| Transcriber's Note:   |\n| a map stood here      |\n+------+",
        "The Transcriber's notes were lost, said Orsin, and nobody wept.",
    ]
    text = books.file_of(
        books.HEADERS["modern"], "", "", "\n\n".join(body) + "\n", "", books.ENDS["modern"]
    )
    assert only_book(text).text == "\n\n".join(body) + "\n"
    strict = only_book(text, notes=True)
    assert strict.text == "\n\n".join([body[0], body[2], body[4]]) + "\n"
    assert strict.notes == 2


def test_a_note_ends_where_the_title_starts():
    note = "Transcriber's Note: Spelling was kept.\n\nHyphens are as in the original."
    body = "ORSIN AT SEA\n\nby A. Nobody\n\n\nOrsin took a boat.\n"
    text = f"{books.HEADERS['modern']}\n\n{note}\n\n{body}\n\n{books.ENDS['modern']}"
    assert only_book(text, notes=True).text == body


def test_an_authors_address_to_the_reader_stays():
    body = "Au lecteur.\n\nC'est ici un livre de bonne foy, lecteur.\n"
    text = books.file_of(books.HEADERS["modern"], "", "", body, "", books.ENDS["modern"])
    assert only_book(text, notes=True).text == body


def test_a_file_cut_in_mid_word():
    text = books.HEADERS["modern"] + books.GAP + "Orsin went down to the har"
    assert only_book(text).text == "Orsin went down to the har"


def test_the_end_line_of_a_part_stays():
    body = "Part one.\n\nEnd of Project Gutenberg's Orsin, Part One, by A. Nobody\n\nPart two.\n"
    text = books.file_of(books.HEADERS["modern"], "", "", body, "", books.ENDS["modern"])
    assert only_book(text).text == body


def test_a_file_that_is_all_header():
    assert only_book(books.HEADERS["modern"], notes=True).text == ""


def test_a_short_book_between_two_small_prints():
    """The small print after a book is as long as the one before, with the same last line."""
    loose, _ = stripped(header="rights", end="small print")
    assert loose.text == books.BODIES["prose"]


@pytest.mark.parametrize("name", sorted(books.NO_BOOKS))
def test_texts_about_project_gutenberg_stay(name):
    text = books.NO_BOOKS[name]
    for notes in (False, True):
        (result,) = strip_gutenberg(text, notes)
        assert result.text is text
        assert not result.removed


@given(
    st.lists(
        st.sampled_from(
            [
                "Produced by Orsin",
                "THE END",
                "Project Gutenberg",
                "End of the story",
                "***",
                "",
                " ",
            ]
        )
        | st.text(max_size=20),
        max_size=30,
    )
)
def test_text_without_a_marker_stays(lines):
    text = "\n".join(lines)
    (result,) = strip_gutenberg(text, notes=True)
    assert result.text is text


@given(st.text(alphabet=" \n\t*[]|+-=.aZ\u2019\u00e9", max_size=300))
def test_any_body_is_extracted_whole(body):
    text = f"{books.HEADERS['modern']}\n\n{body}\n\n{books.ENDS['modern']}"
    filled = [line for line in body.split("\n") if line.strip()]
    lines = only_book(text).text.split("\n")
    assert [line for line in lines if line.strip()] == filled
    assert not filled or (lines[0] == filled[0] and lines[-2:] == [filled[-1], ""])


def test_a_note_below_the_end_line_belongs_to_the_book():
    end = books.ENDS["last line"]
    text = (
        f"{books.HEADERS['modern']}\n\nOrsin sat.\n\n{end}\n\n\n{books.NOTES['changes']}\n\n{end}\n"
    )
    assert only_book(text).text == f"Orsin sat.\n\n\n\n{books.NOTES['changes']}\n"
    assert only_book(text, notes=True).text == "Orsin sat.\n"


def test_a_note_without_a_heading_ends_at_two_blank_lines():
    note = f"{books.NOTES['listed errata']}\n\nMuch of the text is in dialect.\n\n\n"
    text = f"{books.HEADERS['modern']}\n\n\n{note}{books.BODIES['prose']}\n\n{books.ENDS['modern']}"
    assert only_book(text, notes=True).text == books.BODIES["prose"]


def texts_of(text, notes=False):
    """Strip a text that holds several books; every character is in one of them or counted."""
    found = strip_gutenberg(text, notes)
    assert sum(len(book.text) + book.removed.total() for book in found) == len(text)
    return [book.text.strip("\n") for book in found if book.text]


HEADERS = sorted(set(books.HEADERS) - {"none", "marker only"})
ENDS = sorted(set(books.ENDS) - books.FAINT_ENDS)


@st.composite
def joined(draw, headers=HEADERS, ends=ENDS):
    """Return books joined into one text, and their bodies."""
    text, bodies = "", []
    for number in range(draw(st.integers(2, 5))):
        body = books.BODIES[draw(st.sampled_from(sorted(books.BODIES)))]
        bodies.append(body.replace("Orsin", f"Orsin{number}").strip("\n"))
        header = books.HEADERS[draw(st.sampled_from(headers))]
        credit = books.CREDITS[draw(st.sampled_from(sorted(books.CREDITS)))]
        end = books.ENDS[draw(st.sampled_from(ends))]
        text += draw(st.sampled_from(["", "\ufeff"])) + books.file_of(
            header, credit, "", bodies[-1], "", end
        )
        text += draw(st.sampled_from(["", "\n", "\n\n\n"])) if end else "\n\n\n"
    return text, bodies


@settings(max_examples=80)
@given(joined())
def test_joined_books_are_divided(case):
    text, bodies = case
    assert texts_of(text) == bodies


@settings(max_examples=40)
@given(joined(headers=["modern", "this", "2001", "1993"], ends=["none"]))
def test_joined_books_without_footers_are_divided(case):
    text, bodies = case
    assert texts_of(text) == bodies


@pytest.mark.parametrize("end", sorted(set(ENDS) - {"details", "only a license"}))
@pytest.mark.parametrize("body", ["prose", "illustrated", "long"])
def test_text_below_a_footer_is_a_document(end, body):
    first = books.file_of(books.HEADERS["this"], "", "", "Orsin sat.\n", "", books.ENDS[end])
    last = books.file_of(books.HEADERS["2001"], "", "", "Orsin ran.\n", "", books.ENDS["modern"])
    between = books.BODIES[body].strip("\n")
    is_plain = not any(name in books.ENDS[end] for name in ("***", "SMALL", "icense", "named"))
    found = texts_of(f"{first}\n\n{between}\n\n\n{last}")
    assert "Orsin ran." in found
    if not is_plain:  # a plain end line can also end a part of a book
        assert found == ["Orsin sat.", between, "Orsin ran."]
    else:
        assert any(between in text for text in found)


def test_thousands_of_tiny_books():
    texts = [f"Orsin counted to {number}.\n\n" * 20 for number in range(500)]
    text = "".join(
        books.file_of(books.HEADERS["modern"], "", "", body, "", books.ENDS["modern"])
        for body in texts
    )
    assert texts_of(text) == [body.strip() for body in texts]


LINES = [
    *(line for header in ("modern", "1993") for line in books.HEADERS[header].split("\n")),
    *(line for end in ("modern", "this", "small print") for line in books.ENDS[end].split("\n")),
    *(books.NOTES["changes"].split("\n") + books.CREDITS["proofreaders"].split("\n")),
]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(LINES) | st.text(max_size=30), max_size=60), st.booleans())
def test_nothing_is_lost_uncounted(lines, notes):
    text = "\n".join(lines)
    found = strip_gutenberg(text, notes)
    assert sum(len(book.text) + book.removed.total() for book in found) == len(text)
    remaining = iter(text.split("\n"))  # what is kept is in the text, in order
    kept = [line for book in found if book.text for line in book.text.rstrip("\n").split("\n")]
    assert all(line in remaining for line in kept)


def test_book_starts_in_bytes():
    modern, old = books.HEADERS["curly"], books.HEADERS["1993"]
    parts = [
        f"{modern}\n\nOrsin \u00e9.\n\n{books.ENDS['modern']}\n".encode("utf-8-sig"),
        f"{old}\n\nOrsin \u00e9.\n\n{books.ENDS['this']}\n".replace("\n", "\r\n").encode("cp1252"),
        f"{modern}\n\nOrsin \u2019.\n\n{books.ENDS['modern']}\n".encode("utf-8-sig"),
        "\u041e\u0440\u0441\u0438\u043d.\n".encode("koi8-r"),
    ]
    starts = book_starts(b"".join(parts))
    assert [part.strip() for part in cut(b"".join(parts), starts)] == [p.strip() for p in parts]


def cut(data, starts):
    return [data[start:stop] for start, stop in pairwise([0, *starts, len(data)])]


@pytest.mark.slow
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_of_real_books_in_their_own_encodings(corpora, tmp_path, line_end):
    data, bodies = [], []
    headers, ends = cycle(HEADERS), cycle(ENDS)
    for row in ROWS:
        raw = (corpora / "gutenberg" / row["file"]).read_bytes()
        lines = raw.decode(row["encoding"]).replace("\r\n", "\n").split("\n")
        bodies.append("\n".join(lines[int(row["start_line"]) - 1 : int(row["end_line"])]))
        data.append(raw)
    for path in sorted((corpora / "novels").glob("*.gz"))[::8]:
        novel = gzip.decompress(path.read_bytes()).decode("utf-8-sig").replace("\r\n", "\n")
        bodies.append(novel)
        parts = books.HEADERS[next(headers)], "", "", novel, "", books.ENDS[next(ends)]
        data.append(books.file_of(*parts).replace("\n", line_end).encode())
    below = bodies.pop(0)  # a book without header and footer, in UTF-8, below a footer in Latin-1
    data[0] = below.replace("\n", line_end).encode() + b"\n"
    index = next(i for i, row in enumerate(ROWS) if row["encoding"] == "iso-8859-1")
    data.insert(index, data.pop(0))
    bodies.insert(index, below)
    (tmp_path / "all.txt").write_bytes(b"".join(data))
    size = (tmp_path / "all.txt").stat().st_size
    assert size > MAX_BLOCK
    clean = small_params().clean
    notes = Notes()
    found = [
        document.text
        for unit in plan(tmp_path, [RawFile("all.txt", "", "", size, "")])
        for piece in unit.pieces
        for item in read_piece(piece, clean, notes)
        for document in clean_item(item, clean, notes)
    ]
    expected = [normalize(fix_mojibake(body)[0], clean, Counter()) for body in bodies]
    assert [text.strip() for text in found] == [text.strip() for text in expected]
    assert notes.counts["replaced_bytes"] == 0
