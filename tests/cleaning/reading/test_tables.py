import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import tables
from atlas.cleaning.reading.pieces import Notes, Piece, UnreadableFile
from atlas.cleaning.reading.read import read_piece
from tests.cleaning.reading.raw_files import (
    STORIES,
    cleaning,
    parquet,
    read,
    table,
    texts,
)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_row_of_a_table_is_a_document(tmp_path, separator, encoding):
    rows = [{"no": n, "text": f'“{story}”, "é"\n;\t,'} for n, story in enumerate(STORIES)]
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    (tmp_path / "a.csv").write_bytes(out.getvalue().encode(encoding))
    assert texts(read(tmp_path / "a.csv")) == [row["text"] for row in rows]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_missing_column_is_reported_with_the_existing_ones(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    rows = [{"story": "x", "n": "1"}]
    path.write_bytes(table(rows)) if kind == "csv" else parquet(path, rows)
    (item,) = read(path)
    assert isinstance(item, UnreadableFile)
    assert item.reason == "no_text_column"
    assert item.detail.startswith(
        'no column "text" (clean.text_field); columns found: story, n; did you mean story?'
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "letters"),
    [
        ("utf-8", "café crème à la carte"),
        ("cp1252", "café crème à la carte"),
        ("cp1251", "Привет мир. Как дела?"),
    ],
)
def test_an_encoding_is_guessed_from_late_letters(tmp_path, encoding, letters):
    path = tmp_path / "a.csv"
    rows = f"{letters}\n".encode(encoding) * 2000
    path.write_bytes(b"text\n" + b"plain words\n" * 200_000 + rows)
    notes = Notes()
    items = list(read_piece(Piece(path, "a.csv"), cleaning(), notes))
    assert items[-1].text == letters
    assert notes.guessed == ({} if encoding == "utf-8" else {"a.csv": encoding})


def test_invalid_bytes_of_a_table_are_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"text\n" + "schöne Wörter\n".encode() * 99 + b"sch\xf6n\n")
    notes = Notes()
    items = list(read_piece(Piece(path, "a.csv"), cleaning(), notes))
    assert items[-1].text == "sch\ufffdn"
    assert notes.counts["replaced_bytes"] == 1


def read_table(tmp_path, data, name="a.csv", **changes):
    """Read a table; return its items, and the number of rows that broke the dialect."""
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    notes = Notes()
    items = list(read_piece(Piece(tmp_path / name, name), cleaning(**changes), notes))
    return items, notes.counts["unquoted_rows"]


TRICKY = [
    "plain text",
    "a text, with commas; semicolons | pipes: all",
    'she said "yes", and left',
    '"Quoted," he said.',
    "it's a 'quoted' text",
    "two\nlines, each with a comma\nand a third, too",
    "a\r\nb",
    "tab\there",
    'ends with "quotes"',
    "back\\slash and \\n",
]


@pytest.mark.parametrize("delimiter", [*",;\t|:", "^", "~"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
@pytest.mark.parametrize("style", ["doubled", "escaped", "single"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_dialect_of_csv_is_read(tmp_path, delimiter, quoting, style, end):
    options = {
        "doubled": {},
        "escaped": {"doublequote": False, "escapechar": "\\"},
        "single": {"quotechar": "'"},
    }[style]
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end, **options)
    writer.writerow(["id", "text", "lang"])
    contents = TRICKY if end != "\r" else [text.replace("\n", "\r") for text in TRICKY]
    writer.writerows([n, text, "en"] for n, text in enumerate(contents))
    items, changed = read_table(tmp_path, out.getvalue())
    assert texts(items) == contents
    assert not changed
    assert [item.id for item in items] == [f"a.csv:{n}" for n in range(2, 12)]


WORDS = st.sampled_from(["word", "a, b", "“x”", '"', '""', "'", ";", "\n", "\r\n", " ", "é", "7"])
CHARACTERS = st.characters(exclude_categories=["Cc", "Cs"])
PROSE = st.lists(WORDS, min_size=1, max_size=12).map("".join).filter(str.strip)


@given(
    st.lists(
        PROSE | st.text(CHARACTERS, min_size=1, max_size=30).filter(str.strip),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from(",;\t|"),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
@settings(max_examples=100)
def test_written_tables_read_back(tmp_path_factory, contents, delimiter, quoting, end, encoding):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerow(["id", "text", "lang"])
    writer.writerow([0, f'the first {delimiter} "row"', "en"])  # shows the dialect
    writer.writerows([n, text, "en"] for n, text in enumerate(contents, start=1))
    path = tmp_path_factory.mktemp("raw")
    items, changed = read_table(path, out.getvalue().encode(encoding))
    assert texts(items)[1:] == contents
    assert not changed


LINES = st.lists(WORDS.filter(lambda word: word.strip("\r\n")), min_size=1, max_size=9)


@given(st.lists(LINES.map("".join).filter(str.strip), min_size=2, max_size=30))
@settings(max_examples=60)
def test_unquoted_tsv_reads_back(tmp_path_factory, contents):
    rows = [*contents, '"an open quote']  # shows that quotes are text
    data = "id\ttext\n" + "".join(f"{n}\t{text}\n" for n, text in enumerate(rows))
    items, changed = read_table(tmp_path_factory.mktemp("raw"), data, "a.tsv")
    assert texts(items) == rows
    assert not changed


def test_quotes_in_tsv_are_text_unless_all_texts_are_quoted(tmp_path):
    data = 'id\ttext\n1\t"Yes."\n2\tNo.\n3\tPerhaps.\n'
    assert texts(read_table(tmp_path, data)[0]) == ['"Yes."', "No.", "Perhaps."]
    data = "id\ttext\n" + "".join(f'{n}\t"Yes {n}."\n' for n in range(9))
    assert texts(read_table(tmp_path, data)[0]) == [f"Yes {n}." for n in range(9)]
    data = 'id\ttext\n1\t"She said ""yes"", he ""no""."\n2\t"Two\nlines"\n'
    expected = ['She said "yes", he "no".', "Two\nlines"]
    assert texts(read_table(tmp_path, data)[0]) == expected


@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
@pytest.mark.parametrize("before", [10, 20_000])
def test_an_open_quote_swallows_no_rows(tmp_path, delimiter, before):
    rows = [[n, f"story {n}", "en"] for n in range(before)]
    rows += [
        [n, f'"story {n}' if n % 7 == 0 else f"story {n}", "en"] for n in range(before, before + 50)
    ]
    rows += [
        [n, f'story {n}"' if n % 7 == 0 else f"story {n}", "en"]
        for n in range(before + 50, before + 70)
    ]
    rows += [[before + 70, f'"a {delimiter} quoted, ""real"" text\nin 2 lines"', "en"]]
    lines = [delimiter.join(map(str, row)) for row in [["id", "text", "lang"], *rows]]
    items, _ = read_table(tmp_path, "\n".join(lines))
    expected = [row[1] for row in rows[:-1]] + [f'a {delimiter} quoted, "real" text\nin 2 lines']
    assert texts(items) == expected


def test_lines_of_a_quoted_text_that_look_like_rows_stay_one_text(tmp_path):
    poem = "Hello, my\ndear, friend\n\nyou, too\n3, 4"
    other = "one,two\nthree,four"
    rows = [[1, poem], [2, other], [3, "plain"]]
    out = io.StringIO()
    csv.writer(out).writerows([["id", "text"], *rows])
    assert texts(read_table(tmp_path, out.getvalue())[0]) == [poem, other, "plain"]
    out = io.StringIO()
    csv.writer(out).writerows([["label", "text"], ["x", poem], ["y", other], ["x", "plain"]])
    assert texts(read_table(tmp_path, out.getvalue())[0]) == [poem, other, "plain"]


def test_quotes_that_are_not_doubled_are_kept(tmp_path):
    data = 'id,text,lang\n1,"He said ""hi"", ok",en\n2,"He said "hello", and left",en\n'
    data += '3,"Hello" she said,en\n4,"fine",en\n'
    items, changed = read_table(tmp_path, data)
    expected = ['He said "hi", ok', 'He said "hello", and left', '"Hello" she said', "fine"]
    assert texts(items) == expected
    assert changed == 2


def test_an_unquoted_text_with_delimiters_is_joined_if_the_other_columns_show_its_end(tmp_path):
    rows = "".join(f"{n},story {n},en\n" for n in range(20))
    items, changed = read_table(tmp_path, f"id,text,lang\n{rows}20,Hello, world,en\n")
    assert texts(items)[-1] == "Hello, world"
    assert changed == 1
    items, _ = read_table(tmp_path, "a,text,b\nx,y,z\nx,Hello, world,z\n")
    assert texts(items) == ["y", "too_many_fields"]


def test_a_single_column_needs_no_quotes(tmp_path):
    items, _ = read_table(tmp_path, 'text\nHello, world; it | is\tI\n"Hello, world"\n')
    assert texts(items) == ["Hello, world; it | is\tI", "Hello, world"]


@pytest.mark.parametrize(
    "data",
    [
        "sep=;\r\nid;text\r\n1;one, or so\r\n2;two\r\n",
        "\n\nid,text\n\n1,\"one, or so\"\n  \n2,two\n\n",
        "id, text\n1, \"one, or so\"\n2, two\n",
        "\ufeffid|text\r1|one, or so\r2|two",
        "'id','text'\n'1','one, or so'\n'2','two'\n",
        "id~text\n1~one, or so\n2~two\n",
        '"text","id"\n"one, or so","1"\n"two",2',
    ],
)  # fmt: skip
def test_headers_in_unusual_forms(tmp_path, data):
    assert texts(read_table(tmp_path, data)[0]) == ["one, or so", "two"]


def test_columns_without_a_header_have_numbers(tmp_path):
    data = '1,"one, or so",en\n2,two,en\n'
    for field in (2, "2", ["text", 2]):
        assert texts(read_table(tmp_path, data, text_field=field)[0]) == ["one, or so", "two"]
    items, _ = read_table(tmp_path, data, text_field="{3}: {2}")
    assert texts(items) == ["en: one, or so", "en: two"]
    ((item,), _) = read_table(tmp_path, data)
    assert item.detail == (
        'no column "text" (clean.text_field); the first row is no header (1, one, or so, en): name '
        "the column by its number, as in clean.text_field=2"
    )
    items, _ = read_table(tmp_path, "2,text\na,b\n", text_field=2)  # a header with that name
    assert texts(items) == ["a"]


def test_a_table_with_only_a_header_is_empty(tmp_path):
    ((item,), _) = read_table(tmp_path, "id,text\n")
    assert item.reason == "empty"


def test_rows_with_missing_fields(tmp_path):
    rows = "".join(f"{n},story {n},en\n" for n in range(20))
    items, _ = read_table(tmp_path, f"id,text,lang\n{rows}20,last\nof a text,en\n21\n")
    assert texts(items)[-3:] == ["too_few_fields"] * 3
    items, _ = read_table(tmp_path, "id,text,note\n1,one\n2,two,\n")
    assert texts(items) == ["one", "two"]


def test_conversations_in_tables(tmp_path):
    ((item,), _) = read_table(tmp_path, 'instruction,input,output\n"Say, hi",,Hi\n')
    assert item.text == "User: Say, hi\n\nAssistant: Hi"


def test_an_open_quote_is_read_as_text(tmp_path):
    data = 'text,n\nfirst,1\n"open,2\nthird,3\nfourth,4\n'
    items, _ = read_table(tmp_path, data)
    assert texts(items) == ["first", '"open', "third", "fourth"]


@pytest.mark.parametrize("row", ["x" * 500, '"' + "x\n" * 100 + '"', '"",' * 100])
def test_an_overlong_row_is_rejected(tmp_path, monkeypatch, row):
    monkeypatch.setattr(tables, "MAX_ROW", 100)
    items, _ = read_table(tmp_path, f"text,n\nfirst,1\n{row}\nlast,2\n")
    assert texts(items)[0] == "first"
    assert texts(items)[-1] == "last"
    assert not isinstance(items[1], Document)


def test_an_overlong_text_of_many_lines_is_one_rejection(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_ROW", 1000)
    long = "\n".join(f"line {n}, and so on" * (n % 3) for n in range(500))
    data = f'id,text,n\n1,first,2\n2,"{long}",3\n3,last,4\n'
    assert texts(read_table(tmp_path, data)[0]) == ["first", "row_too_long", "last"]


def test_damage_to_tables_is_no_error(tmp_path):
    out = io.StringIO()
    csv.writer(out).writerows([["id", "text"], *enumerate(TRICKY)])
    data = out.getvalue().encode()
    for place in range(0, len(data), 9):
        for byte in b'"\n,\\\x00\xff':
            read_table(tmp_path, data[:place] + bytes([byte]) + data[place + 1 :])
