import contextlib

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import columnar
from atlas.cleaning.reading import read as read_module
from atlas.cleaning.reading.columnar import read_arrow
from atlas.cleaning.reading.containers import BrokenFileError
from atlas.cleaning.reading.pieces import Notes, Piece
from atlas.cleaning.reading.read import read_piece
from tests.cleaning.reading.raw_files import STORIES, cleaning, parquet, read, read_all, texts


def test_parquet_is_read_by_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(read_module, "MIN_RANGE", 100)
    rows = [{"story": story, "text": story, "source": "s"} for story in STORIES]
    parquet(tmp_path / "a.parquet", rows, row_group_size=2)
    items = read_all(tmp_path, ["a.parquet"])
    assert texts(items) == STORIES
    assert [item.id for item in items] == [f"a.parquet:{n}" for n in range(1, 6)]
    assert {item.source for item in items} == {"s"}


def test_text_in_parquet_that_is_not_utf8_is_guessed(tmp_path):
    path = parquet(tmp_path / "a.parquet", [{"text": "schön " * 99}], compression="none")
    path.write_bytes(path.read_bytes().replace("ö".encode(), b"\xf6\xf6"))
    notes = Notes()
    (item,) = read_piece(Piece(path, "a.parquet"), cleaning(), notes)
    assert item.text == "schöön " * 99
    assert notes.guessed == {"a.parquet": "cp1252"}


def test_an_impossible_date_in_parquet_is_reported(tmp_path):
    column = pyarrow.array([2**31 - 1], pyarrow.date32())
    written = pyarrow.table({"text": ["one"], "source": column})
    pyarrow.parquet.write_table(written, tmp_path / "a.parquet")
    (item,) = read(tmp_path / "a.parquet")
    assert item.reason == "broken_parquet"


def test_batches_of_long_parquet_rows_are_small(tmp_path):
    rows = [{"text": f"{n}" + "x" * (3 << 20)} for n in range(30)]
    path = parquet(tmp_path / "a.parquet", rows, compression="none", use_dictionary=False)
    metadata = pyarrow.parquet.read_metadata(path)
    assert columnar._batch_rows(metadata, range(metadata.num_row_groups)) == 10
    assert texts(read(path)) == [row["text"] for row in rows]


def arrow(path, rows, new=pyarrow.ipc.new_file):
    table = pyarrow.Table.from_pylist(rows)
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def read_rows(path, **changes):
    return list(read_arrow(Piece(path, path.name), cleaning(**changes), Notes()))


@pytest.mark.parametrize("new", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
def test_arrow_files_and_streams_are_read(tmp_path, new):
    path = arrow(tmp_path / "a.arrow", [{"text": story, "n": 1} for story in STORIES], new)
    items = read_rows(path)
    assert texts(items) == STORIES
    assert [item.id for item in items] == [f"a.arrow:{n}" for n in range(1, 6)]


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_feather_is_arrow(tmp_path, compression):
    table = pyarrow.Table.from_pylist([{"text": story} for story in STORIES])
    pyarrow.feather.write_feather(table, tmp_path / "a.feather", compression=compression)
    assert texts(read_rows(tmp_path / "a.feather")) == STORIES


@pytest.mark.parametrize("data", [b"ARROW1", b"FEA1 old", b"no arrow at all", b"\xff" * 99])
def test_a_damaged_arrow_file_is_reported(tmp_path, data):
    (tmp_path / "a.arrow").write_bytes(data)
    with pytest.raises(BrokenFileError) as error:
        read_rows(tmp_path / "a.arrow")
    assert error.value.reason == "broken_arrow"


@pytest.mark.parametrize("new", [pyarrow.ipc.new_file, pyarrow.ipc.new_stream])
def test_arrow_with_flipped_bytes_never_crashes(tmp_path, new):
    path = arrow(tmp_path / "a.arrow", [{"text": story} for story in STORIES], new)
    data = path.read_bytes()
    for place in range(0, len(data), 37):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x81]) + data[place + 1 :])
        with contextlib.suppress(BrokenFileError):
            read_rows(path)


@pytest.mark.parametrize(
    "kind",
    [
        *(pyarrow.string(), pyarrow.large_string(), pyarrow.binary(), pyarrow.large_binary()),
        *(pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), pyarrow.string_view()),
    ],
    ids=str,
)
def test_text_of_every_type_is_read(tmp_path, kind):
    column = pyarrow.array(["schön", None, "two"]).cast(kind)
    pyarrow.parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    assert texts(read(tmp_path / "a.parquet")) == ["schön", "no_text", "two"]


def test_nested_columns_are_read(tmp_path):
    rows = [{"data": {"text": "one", "n": [{"de": "eins"}, {"de": "uno"}]}}, {"data": None}]
    path = parquet(tmp_path / "a.parquet", rows)
    assert texts(read(path, "data.text")) == ["one", "no_text"]
    assert texts(read(path, "data.n.de")) == ["eins\n\nuno", "no_text"]
    assert texts(read(path, "{data.text}: {data.n.0.de}")) == ["one: eins", "no_text"]
    (item,) = read(path, "data.txt")
    assert item.detail == (
        'no column "data.txt" (clean.text_field); columns found: data.text, data.n.de; did you '
        "mean data.text?"
    )


def test_messages_in_parquet_are_conversations(tmp_path):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (item,) = read(parquet(tmp_path / "a.parquet", [{"messages": messages}]))
    assert item.messages == messages
    assert item.text == "User: Hi\n\nAssistant: Hello"


def test_a_column_of_another_type_is_rejected_row_by_row(tmp_path):
    first = parquet(tmp_path / "a.parquet", [{"text": "one"}])
    second = parquet(tmp_path / "b.parquet", [{"text": 1}, {"text": 2}])
    assert texts([*read(first), *read(second)]) == ["one", "no_text", "no_text"]


def test_binary_values_that_are_no_text_are_rejected(tmp_path):
    rows = [{"text": b"one"}, {"text": bytes(range(256))}]
    assert texts(read(parquet(tmp_path / "a.parquet", rows))) == ["one", "not_text"]


def test_bytes_are_guessed_together(tmp_path):
    rows = [{"text": text.encode("cp1251")} for text in ("Привет мир.", "Как дела? Хорошо.")]
    items = read(parquet(tmp_path / "a.parquet", rows))
    assert texts(items) == ["Привет мир.", "Как дела? Хорошо."]
    assert all(isinstance(item, Document) for item in items)
