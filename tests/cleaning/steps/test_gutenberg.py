import csv

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from atlas.cleaning.steps.gutenberg import strip_gutenberg
from tests.cleaning.steps import gutenberg_books as books
from tests.small import CORPORA

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
