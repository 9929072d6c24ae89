import csv
import io

import pytest

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
    assert (
        item.detail
        == 'no column "text" (clean.text_field); columns found: story, n; did you mean story?'
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


def test_a_row_with_too_many_fields_is_rejected(tmp_path):
    (tmp_path / "a.csv").write_text('text\nHello, world, it is I\n"Hello, world"\n')
    rejected, kept = read(tmp_path / "a.csv")
    assert (rejected.id, rejected.reason) == ("a.csv:2", "too_many_fields")
    assert kept.text == "Hello, world"


def test_an_open_quote_is_reported(tmp_path):
    (tmp_path / "a.csv").write_text('text,n\nfirst,1\n"open,2\nthird,3\nfourth,4\n')
    first, broken = read(tmp_path / "a.csv")
    assert first.text == "first"
    assert isinstance(broken, UnreadableFile)
    assert (broken.reason, broken.detail) == ("broken_csv", "a quote in row 3 is never closed")


@pytest.mark.parametrize("row", ["x" * 500, '"' + "x\n" * 100 + '"', '"",' * 100 + "\n"])
def test_an_overlong_row_is_reported(tmp_path, monkeypatch, row):
    monkeypatch.setattr(tables, "MAX_ROW", 100)
    (tmp_path / "a.csv").write_text(f"text,n\nfirst,1\n{row}\nlast,2\n")
    first, broken = read(tmp_path / "a.csv")
    assert first.text == "first"
    assert broken.reason == "broken_csv"
