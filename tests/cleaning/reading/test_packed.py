import gzip
import zipfile

from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import containers as streams
from atlas.cleaning.reading import read as units
from atlas.cleaning.reading.pieces import Rejection, UnreadableFile
from atlas.corpora.manifest import RawFile
from tests.cleaning.reading.raw_files import STORIES, archive, jsonl, read_all, texts


def test_members_of_an_archive_are_read_one_by_one(tmp_path):
    contents = {
        "b/a.txt": STORIES[0],
        "b/": "",
        "../../escape.txt": STORIES[1],
        "/etc/absolute.txt": STORIES[2],
        "c.jsonl": jsonl(*STORIES[3:]),
        "d.txt.gz": gzip.compress(b"packed twice"),
        "picture.png": b"\x89PNG",
        "__MACOSX/a.txt": b"\x00",
        ".hidden.txt": b"\x00",
    }
    archive(tmp_path / "a.zip", contents)
    before = set(tmp_path.rglob("*"))
    items = read_all(tmp_path, ["a.zip"])
    found = {item.id.removeprefix("a.zip/"): texts([item])[0] for item in items}
    assert found == {
        "../../escape.txt": STORIES[1],
        "/etc/absolute.txt": STORIES[2],
        "b/a.txt": STORIES[0],
        "c.jsonl:1": STORIES[3],
        "c.jsonl:2": STORIES[4],
        "d.txt.gz": "packed twice",
        "picture.png": "unknown_kind",
    }
    assert set(tmp_path.rglob("*")) == before


def damaged(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_damage_is_reported_before_the_first_document(tmp_path):
    long = "\n".join(STORIES * 200)
    archive(tmp_path / "a.zip", {"a.txt": long})
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(long.encode()))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(jsonl(*STORIES * 200)))
    for name in ("a.zip", "a.txt.gz", "a.jsonl.gz"):
        damaged(tmp_path / name)
    items = read_all(tmp_path, ["a.zip", "a.txt.gz", "a.jsonl.gz"])
    assert [(type(item), item.reason) for item in items] == [
        (UnreadableFile, "broken_zip"),
        (UnreadableFile, "broken_gzip"),
        (UnreadableFile, "broken_gzip"),
    ]


def test_zip_bombs_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "ALWAYS_ALLOWED", 1 << 20)
    zeros = b"0" * (30 << 20)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(zeros))
    archive(tmp_path / "a.zip", {"a.txt": zeros})
    items = read_all(tmp_path, ["a.txt.gz", "a.zip"])
    assert [item.reason for item in items] == ["swells", "swells"]


def test_repeated_member_names_are_rejected(tmp_path):
    archive(tmp_path / "a.zip", {"m.txt": "first", "n.txt": "second"})
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"n.txt", b"m.txt"))
    (item,) = read_all(tmp_path, ["a.zip"])
    assert (item.reason, item.detail) == ("repeated_names", "2 files in it are called m.txt")


def test_an_empty_archive_is_rejected(tmp_path):
    archive(tmp_path / "a.zip", {"folder/": "", ".hidden": "x"})
    assert read_all(tmp_path, ["a.zip"]) == [Rejection("a.zip", "empty")]


def test_small_members_share_a_unit(tmp_path):
    archive(tmp_path / "a.zip", {f"{n:03}.txt": f"text {n}" for n in range(300)})
    files = [RawFile("a.zip", "", "", (tmp_path / "a.zip").stat().st_size, "")]
    assert len(units.plan(tmp_path, files)) == 1
    assert texts(read_all(tmp_path, ["a.zip"])) == [f"text {n}" for n in range(300)]


PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@given(
    packing=st.sampled_from(PACKINGS),
    changes=st.dictionaries(st.integers(0, 1 << 20), st.integers(0, 255), min_size=1, max_size=3),
)
@settings(max_examples=200, deadline=None)
def test_any_damage_is_reported(tmp_path_factory, packing, changes):
    folder = tmp_path_factory.mktemp("raw")
    with zipfile.ZipFile(folder / "a.zip", "w", packing) as file:
        file.writestr("größe.txt", STORIES[0])
        file.writestr("b.jsonl", jsonl(*STORIES))
    data = bytearray((folder / "a.zip").read_bytes())
    for place, value in changes.items():
        data[place % len(data)] = value
    (folder / "a.zip").write_bytes(data)
    for item in read_all(folder, ["a.zip"]):
        assert isinstance(item, Document | Rejection | UnreadableFile)
