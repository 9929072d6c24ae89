import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import json_files, streams
from atlas.cleaning.reading import read as read_module
from atlas.cleaning.reading.json_files import read_jsonl
from atlas.cleaning.reading.pieces import Notes, Piece, UnreadableFile
from atlas.cleaning.reading.read import read_piece
from tests.cleaning.reading.raw_files import STORIES, cleaning, jsonl, read, read_all, texts

RECORDS = [{"id": n, "text": story} for n, story in enumerate(STORIES)]


def read_data(tmp_path, data, name="a.jsonl", **changes):
    data = data if isinstance(data, bytes) else data.encode()
    (tmp_path / name).write_bytes(data)
    return list(read_piece(Piece(tmp_path / name, name), cleaning(**changes), Notes()))


LAYOUTS = {
    "array": json.dumps(RECORDS),
    "indented array": json.dumps(RECORDS, indent=2),
    "array of lines": "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n",
    "trailing comma": "[\n" + "".join(json.dumps(each) + ",\n" for each in RECORDS) + "]",
    "lines": "".join(json.dumps(each) + "\n" for each in RECORDS),
    "lines with CR": "".join(json.dumps(each) + "\r" for each in RECORDS),
    "indented objects": "\n".join(json.dumps(each, indent=1) for each in RECORDS),
    "objects in a row": "".join(map(json.dumps, RECORDS)),
    "text sequence": "".join(f"\x1e{json.dumps(each, indent=1)}\n" for each in RECORDS),
    "object with a list": json.dumps({"version": "1", "tags": ["a"], "data": RECORDS}),
    "indented object with a list": json.dumps({"rows": RECORDS, "n": 5}, indent=1),
    "objects by name": json.dumps({f"r{each['id']}": each for each in RECORDS}),
    "columns": json.dumps({key: [each[key] for each in RECORDS] for key in ("id", "text")}),
    "columns of pandas": json.dumps(
        {key: {str(n): each[key] for n, each in enumerate(RECORDS)} for key in ("id", "text")}
    ),
    "columns, index and data": json.dumps(
        {"columns": ["id", "text"], "index": [0], "data": [[r["id"], r["text"]] for r in RECORDS]}
    ),
    "strings": json.dumps(STORIES),
    "lines of strings": "".join(json.dumps(each) + "\n" for each in STORIES),
    "lines of arrays": "".join(json.dumps([each]) + "\n" for each in RECORDS),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_records_are_read_in_every_layout(tmp_path, layout, encoding):
    items = read_data(tmp_path, LAYOUTS[layout].encode(encoding))
    assert texts(items) == STORIES
    assert len({item.id for item in items}) == len(items)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ranges_read_each_record_once(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(read_module, "MIN_RANGE", 100)
    (tmp_path / "a.jsonl").write_text(LAYOUTS[layout])
    assert texts(read_all(tmp_path, ["a.jsonl"])) == STORIES


def test_rows_without_a_header_have_numbers(tmp_path):
    data = "".join(json.dumps([n, story]) + "\n" for n, story in enumerate(STORIES))
    assert texts(read_data(tmp_path, data, text_field=2)) == STORIES


def test_a_string_between_objects_is_rejected(tmp_path):
    data = jsonl("one") + b'"a string"\n[1]\n' + jsonl("two")
    assert texts(read_data(tmp_path, data)) == ["one", "no_text", "no_text", "two"]


def test_a_single_object_is_a_record(tmp_path):
    assert texts(read_data(tmp_path, json.dumps(RECORDS[0], indent=1))) == STORIES[:1]
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (item,) = read_data(tmp_path, json.dumps({"messages": messages}, indent=1))
    assert item.messages == messages


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", "Café crème “à la carte” et du thé, s’il vous plaît. "),
        ("cp1251", "Привет, мир! Как у вас дела? У нас всё хорошо. "),
        ("cp932", "吾輩は猫である。名前はまだ無い。どこで生れたか頓と見当がつかぬ。"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
def test_the_encoding_of_json_lines_is_guessed(tmp_path, monkeypatch, encoding, text, late):
    monkeypatch.setattr(read_module, "MIN_RANGE", 10_000)
    ascii_lines = "".join(json.dumps({"text": "plain"}) + "\n" for _ in range(5000 * late))
    lines = "".join(json.dumps({"text": text * n}, ensure_ascii=False) + "\n" for n in range(1, 99))
    (tmp_path / "a.jsonl").write_bytes((ascii_lines + lines).encode(encoding))
    items = read_all(tmp_path, ["a.jsonl"])
    assert texts(items)[5000 * late :] == [text * n for n in range(1, 99)]


def test_an_invalid_line_of_utf8_is_rejected(tmp_path):
    data = "".join(json.dumps({"text": "schön"}, ensure_ascii=False) + "\n" for _ in range(9))
    items = read_data(tmp_path, data.encode() + b'{"text": "sch\xf6n"}\n')
    assert texts(items) == ["schön"] * 9 + ["not_utf8"]


def test_the_keys_found_are_listed(tmp_path):
    *_, file = read_data(tmp_path, '{"id": 1, "content": "one"}\n{"id": 2, "content": "two"}\n')
    assert isinstance(file, UnreadableFile)
    assert file.reason == "no_text_key"
    assert file.detail == (
        'no key "text" (clean.text_field); keys found: id, content; did you mean content?'
    )


def test_a_template_with_an_unknown_key_is_refused_once(tmp_path, monkeypatch):
    monkeypatch.setattr(read_module, "MIN_RANGE", 100)
    (tmp_path / "a.jsonl").write_text(LAYOUTS["lines"])
    (item,) = read_all(tmp_path, ["a.jsonl"], text_field="{id}: {txt}")
    assert item.detail == (
        'no key "txt" (clean.text_field); keys found: id, text; did you mean text?'
    )


def test_a_key_of_a_template_may_be_missing_in_some_records(tmp_path):
    data = '{"title": "A", "text": "one"}\n{"text": "two"}\n{"n": 1}\n'
    items = read_data(tmp_path, data, text_field="{title}\\n\\n{text}")
    assert texts(items) == ["A\n\none", "two", "no_text"]


@pytest.mark.parametrize("start", ["[", "", '{"rows": ['])
def test_a_record_of_any_length_costs_only_itself(tmp_path, monkeypatch, start):
    monkeypatch.setattr(streams, "MAX_LINE", 1000)
    monkeypatch.setattr(json_files, "CHUNK", 100)
    long = json.dumps({"text": 'x"\\}]' * 900, "n": [1, {"a": "]"}]})
    parts = [json.dumps(RECORDS[0]), long, json.dumps(RECORDS[1])]
    end = {"[": "]", "": "", '{"rows": [': "]}"}[start]
    items = read_data(tmp_path, start + (",\n" if start else "\n").join(parts) + end)
    assert [text[:20] for text in texts(items)] == [
        STORIES[0][:20],
        "record_too_long" if start else "line_too_long",
        STORIES[1][:20],
    ]


def test_a_long_first_line_does_not_hide_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_LINE", 1000)
    items = read_data(tmp_path, jsonl("x" * 5000, *STORIES[:2]))
    assert texts(items) == ["line_too_long", *STORIES[:2]]


def test_a_long_text_becomes_several_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "MAX_BLOCK", 1000)
    story = "\n".join(STORIES)
    items = read_data(tmp_path, jsonl(story, "two"))
    assert "".join(texts(items)[:-1]) == story
    assert [item.id for item in items[:2]] == ["a.jsonl:1#1", "a.jsonl:1#2"]
    assert all(item.text.endswith("\n") for item in items[:-2])


@pytest.mark.parametrize("data", ["[", '[{"text": "a"', '[{"text": "a"}', '[{"a": 1} {"b": 2}]'])
def test_a_damaged_array_is_reported(tmp_path, data):
    *_, last = read_data(tmp_path, data)
    assert isinstance(last, UnreadableFile)
    assert last.reason == "broken_json"


def test_records_before_the_damage_are_kept(tmp_path):
    items = read_data(tmp_path, json.dumps(RECORDS)[:-30])
    assert texts(items) == [*STORIES[:4], "broken_json"]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("dataset_info.json", {"features": {"text": {"dtype": "string"}}, "splits": {}}),
        ("state.json", {"_data_files": [{"filename": "data.arrow"}], "_fingerprint": "0"}),
    ],
)
def test_descriptions_of_datasets_are_no_documents(tmp_path, name, record):
    (tmp_path / name).write_text(json.dumps(record, indent=1))
    (item,) = read_jsonl(Piece(tmp_path / name, name), cleaning(), Notes())
    assert item.reason == "metadata"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=9,
)


@given(st.lists(VALUES, max_size=9), st.integers(1, 50), st.sampled_from([None, 1]))
def test_values_are_parsed_whatever_the_size_of_the_buffer(values, chunk, indent):
    before = json_files.CHUNK
    json_files.CHUNK = chunk
    try:
        reader = json_files._Values(io.StringIO(json.dumps(values, indent=indent)))
        assert list(reader.items()) == values
        text = "\n".join(json.dumps(value, indent=indent) for value in values)
        reader = json_files._Values(io.StringIO(text))
        assert [reader.value() for _ in values] == values
        assert not reader.peek()
    finally:
        json_files.CHUNK = before


def test_broken_lines_of_a_real_corpus(corpora):
    path = corpora / "dirty/broken.jsonl"
    items = read(path)
    kept = [int(item.id.split(":")[1]) for item in items if isinstance(item, Document)]
    assert kept == [1, 2, 5, 16, 17, 18, 20, 22, 23]  # 18 is empty, 20 has a lone surrogate
