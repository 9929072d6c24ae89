import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import read as units
from atlas.cleaning.reading import streams as blocks
from atlas.cleaning.reading.pieces import Rejection, TextBlock, UnreadableFile
from atlas.cleaning.reading.read import plan
from atlas.corpora.manifest import RawFile
from tests.cleaning.reading.raw_files import STORIES, jsonl, read, read_all, texts


@pytest.mark.parametrize("name", ["a.txt", "A.TXT", "a.md", "a.text", "a.txt.gz", "a.gz"])
def test_a_text_file_is_a_document(tmp_path, name):
    data = STORIES[0].encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert read(tmp_path / name) == [TextBlock(name, name, STORIES[0])]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz"])
def test_a_line_of_json_is_a_document(tmp_path, name):
    data = jsonl(*STORIES)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    items = read(tmp_path / name)
    assert texts(items) == STORIES
    assert [item.id for item in items] == [f"{name}:{n}" for n in range(1, 6)]


def test_another_field_can_hold_the_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"story": "one"}\n{"text": "two"}\n')
    assert texts(read(tmp_path / "a.jsonl", "story")) == ["one", "no_text"]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.zip", b"PK\x03\x04 no zip", "broken_zip"),
        ("a.parquet", b"PAR1 no parquet", "broken_parquet"),
        ("a.zip", bytes(range(256)), "broken_zip"),
        ("a.epub", bytes(range(256)), "broken_epub"),
        ("a.gz", bytes(range(256)), "broken_gzip"),
        ("a.html", bytes(range(256)), "not_text"),
        ("a.txt", bytes(range(256)) * 9, "not_text"),
        ("a.jsonl", b' \n[\n{"text": "cut off', "broken_json"),
    ],
)
def test_a_file_of_another_format_is_unreadable(tmp_path, name, data, reason):
    (tmp_path / name).write_bytes(data)
    (item,) = read_all(tmp_path, [name])
    assert isinstance(item, UnreadableFile)
    assert (item.id, item.reason) == (name, reason)


def test_a_file_without_documents_is_rejected_after_its_lines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"{}\n" * 3)
    *lines, file = read(tmp_path / "a.jsonl")
    assert [(item.id, item.reason) for item in lines] == [
        (f"a.jsonl:{n}", "no_text") for n in (1, 2, 3)
    ]
    assert isinstance(file, UnreadableFile)
    assert file.detail == 'no key "text" (clean.text_field); the record has no keys'


def test_documents_are_found_after_many_bad_lines(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"junk\n" * 5000 + jsonl(*STORIES))
    assert texts(read(tmp_path / "a.jsonl"))[5000:] == STORIES


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.txt.gz"])
def test_an_empty_file_is_a_rejection(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith("gz") else b"")
    assert read_all(tmp_path, [name]) == [Rejection(name, "empty")]


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "MAX_BLOCK", 1000)
    monkeypatch.setattr(blocks, "LOOK_BACK", 200)
    monkeypatch.setattr(units, "MIN_UNIT", 1000)
    monkeypatch.setattr(units, "MIN_RANGE", 1000)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize("newline", ["\n", " "])
def test_a_very_long_text_is_several_documents(tmp_path, small_blocks, encoding, newline):
    content = newline.join(f"{n} schöne Wörter 😀" for n in range(1000)).replace("\n", newline)
    (tmp_path / "a.txt").write_bytes(content.encode(encoding))
    items = read_all(tmp_path, ["a.txt"])
    assert len(items) > 9
    assert len({item.id for item in items}) == len(items)
    assert items[0].id == "a.txt"
    assert "".join(item.text for item in items) == content


def test_only_the_binary_part_of_a_text_is_rejected(tmp_path, small_blocks):
    content = "\n".join(STORIES * 4).encode()
    (tmp_path / "a.txt").write_bytes(content + bytes(1000) + content)
    items = read_all(tmp_path, ["a.txt"])
    assert {type(item) for item in items} == {TextBlock, Rejection}
    assert sum(len(item.text) for item in items if isinstance(item, Document)) > len(content)


@given(st.lists(st.text(max_size=30), min_size=1, max_size=40), st.integers(20, 300))
@settings(deadline=None)
def test_line_numbers_do_not_depend_on_ranges(tmp_path_factory, contents, size):
    folder = tmp_path_factory.mktemp("raw")
    (folder / "a.jsonl").write_bytes(jsonl(*contents) + b"\n\n" + jsonl("last"))
    whole = read(folder / "a.jsonl")
    before = units.MIN_RANGE
    units.MIN_RANGE = size
    try:
        assert read_all(folder, ["a.jsonl"]) == whole
    finally:
        units.MIN_RANGE = before


def test_only_the_overlong_line_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_LINE", 2000)
    data = jsonl(STORIES[0]) + b'{"text": "' + b"x" * 5000 + b'"}\n' + jsonl(STORIES[1])
    (tmp_path / "a.jsonl").write_bytes(data)
    assert texts(read(tmp_path / "a.jsonl")) == [STORIES[0], "line_too_long", STORIES[1]]


def test_special_tokens_stay_text(tmp_path):
    content = "before <|endoftext|> after <s> </s> [PAD]"
    (tmp_path / "a.txt").write_text(content)
    assert texts(read(tmp_path / "a.txt")) == [content]


def test_small_files_share_a_unit_and_large_ones_have_several(tmp_path, small_blocks):
    for n in range(6):
        (tmp_path / f"{n}.txt").write_bytes(b"x" * 400)
    (tmp_path / "large.jsonl").write_bytes(jsonl(*STORIES * 5))
    names = [*(f"{n}.txt" for n in range(6)), "large.jsonl"]
    files = [RawFile(name, "", "", (tmp_path / name).stat().st_size, "") for name in names]
    sizes = [len(unit.pieces) for unit in plan(tmp_path, files)]
    assert sizes[:3] == [2, 2, 2]
    assert len(sizes) == 3 + -(-files[-1].bytes // 1000)
