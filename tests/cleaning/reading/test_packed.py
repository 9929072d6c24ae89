import bz2
import gzip
import lzma
import random
import sys
import tarfile
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import containers
from atlas.cleaning.reading import read as units
from atlas.cleaning.reading.pieces import Notes, Rejection, UnreadableFile
from atlas.corpora import local_files
from atlas.corpora.manifest import RawFile
from tests.cleaning.reading.raw_files import (
    STORIES,
    archive,
    cleaning,
    jsonl,
    read_all,
    table,
    texts,
)
from tests.cleaning.reading.written import tarred

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


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


COMPRESSIONS = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_files_are_read(tmp_path, suffix):
    compress = COMPRESSIONS[suffix]
    (tmp_path / f"c4-train.00000-of-01024.json.{suffix}").write_bytes(compress(jsonl(*STORIES)))
    (tmp_path / f"several.txt.{suffix}").write_bytes(compress(b"one ") + compress(b"two"))
    (tmp_path / f"twice.txt.gz.{suffix}").write_bytes(compress(gzip.compress(b"packed twice")))
    (tmp_path / "no_suffix").write_bytes(compress(b"content decides"))
    (tmp_path / f"wrong.txt.{suffix}").write_bytes(b"not compressed")
    notes = Notes()
    items = read_all(tmp_path, sorted(path.name for path in tmp_path.iterdir()), notes)
    others = ["content decides", "one two", "packed twice", "not compressed"]
    assert texts(items) == [*STORIES, *others]
    (warning,) = notes.warnings
    assert warning.startswith(f"wrong.txt.{suffix}: not compressed with ")


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_cut_and_swelling_files_are_refused(tmp_path, suffix):
    compress = COMPRESSIONS[suffix]
    noise = random.Random(1).randbytes(3000).hex().encode()
    (tmp_path / f"cut.txt.{suffix}").write_bytes(compress(noise)[:-7])
    (tmp_path / f"swells.txt.{suffix}").write_bytes(compress(b"0" * (20 << 20)))
    items = read_all(tmp_path, [f"cut.txt.{suffix}", f"swells.txt.{suffix}"])
    assert all(isinstance(item, UnreadableFile) for item in items)
    assert [item.reason.partition("_")[0] for item in items] == ["broken", "swells"]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_archives_are_read(tmp_path, monkeypatch, mode):
    contents = {
        "./d/a.txt": STORIES[0].encode(),
        "../../escape.txt": STORIES[1].encode(),
        "c.csv": table([{"text": text} for text in STORIES[2:]]),
        "picture.png": b"\x89PNG",
        ".hidden": b"x",
    }
    (tmp_path / "a.tar").write_bytes(tarred(contents, mode))
    before = set(tmp_path.rglob("*"))
    for limit in (containers.MAX_IN_MEMORY, 10):  # members in memory, or read from the archive
        monkeypatch.setattr(containers, "MAX_IN_MEMORY", limit)
        items = read_all(tmp_path, ["a.tar"])
        assert texts(items) == [*STORIES, "unknown_kind"]
        assert [item.id for item in items][:2] == ["a.tar/./d/a.txt", "a.tar/../../escape.txt"]
    assert set(tmp_path.rglob("*")) == before


def test_a_large_member_of_a_tar_archive_can_be_read_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(containers, "MAX_IN_MEMORY", 10)
    monkeypatch.setattr(containers, "CHUNK", 1000)
    rows = [{"text": f"{number} {text}"} for number, text in enumerate(STORIES * 300)]
    last = {"text": "à la fin"}  # its encoding is found after the whole file has been read
    data = {"a.txt": b"x" * 5000, "b.csv": table([*rows, last]), "c.txt": b"y" * 5000}
    (tmp_path / "a.tar.gz").write_bytes(tarred(data, "w:gz"))
    first, *middle, end = texts(read_all(tmp_path, ["a.tar.gz"]))
    assert [first, end] == ["x" * 5000, "y" * 5000]
    assert middle == [row["text"] for row in [*rows, last]]


def test_links_and_devices_in_an_archive_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            entry = tarfile.TarInfo(f"{kind}.txt")
            entry.type, entry.linkname = kind, "/etc/passwd"
            file.addfile(entry)
    items = read_all(tmp_path, ["a.tar"])
    assert [item.reason for item in items] == ["not_a_file"] * 4


def test_both_versions_of_a_file_in_a_tar_archive_are_read(tmp_path):
    data = tarred({"a.txt": b"old"}).rstrip(b"\0")
    data += bytes(-len(data) % 512) + tarred({"a.txt": b"new"})
    (tmp_path / "a.tar").write_bytes(data)
    items = read_all(tmp_path, ["a.tar"])
    assert [(item.id, item.text) for item in items] == [
        ("a.tar/a.txt", "old"),
        ("a.tar/a.txt@2", "new"),
    ]


@pytest.mark.parametrize("size", [3000, 1000, 5000])
def test_a_cut_tar_archive_is_refused(tmp_path, size):
    data = tarred({"a.txt": b"x" * 2000, "b.txt": b"y" * 2000})
    (tmp_path / "a.tar").write_bytes(data[:size])
    (item,) = read_all(tmp_path, ["a.tar"])
    assert (type(item), item.reason) == (UnreadableFile, "broken_tar")


def test_an_archive_in_an_archive_is_read_and_a_third_refused(tmp_path):
    inner = archive(tmp_path / "0.zip", {"a.txt": "one"}).read_bytes()
    outer = archive(tmp_path / "1.zip", {"b.zip": inner, "c.tar.gz": tarred({"d.txt": b"two"})})
    archive(tmp_path / "2.zip", {"e.zip": outer.read_bytes()})
    assert texts(read_all(tmp_path, ["1.zip"])) == ["one", "two"]
    items = read_all(tmp_path, ["2.zip"])
    assert [item.reason for item in items] == ["nested_archive"] * 2


def test_an_archive_too_large_for_memory_in_another_is_refused(tmp_path, monkeypatch):
    noise = random.Random(1).randbytes(100_000)
    inner = archive(tmp_path / "0.zip", {"a.bin": noise}).read_bytes()
    archive(tmp_path / "1.zip", {"b.zip": inner, "c.txt": "two"})
    monkeypatch.setattr(containers, "MAX_IN_MEMORY", 20)
    assert texts(read_all(tmp_path, ["1.zip"])) == ["too_large", "two"]


def test_an_encrypted_zip_archive_is_refused(tmp_path):
    data = bytearray(archive(tmp_path / "a.zip", {"a.txt": "x"}).read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    (item,) = read_all(tmp_path, ["a.zip"])
    assert (item.reason, item.detail) == ("zip_encrypted_or_unknown", "it needs a password")


def test_zip_bombs_are_refused(tmp_path):
    zeros = b"0" * (20 << 20)
    archive(tmp_path / "a.zip", {"a.txt": zeros})
    archive(tmp_path / "b.zip", {"a.txt.gz": gzip.compress(zeros)})
    (tmp_path / "c.tar.gz").write_bytes(tarred({"a.txt": zeros}, "w:gz"))
    items = read_all(tmp_path, ["a.zip", "b.zip", "c.tar.gz"])
    assert [item.reason for item in items] == ["swells"] * 3


def test_large_zip_archives_are_divided(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "MIN_RANGE", 1000)
    monkeypatch.setattr(units, "MIN_UNIT", 1000)
    noise = {f"{n}.txt": random.Random(n).randbytes(500).hex() for n in range(5)}
    archive(tmp_path / "a.zip", noise)
    files = [RawFile("a.zip", "", "", (tmp_path / "a.zip").stat().st_size, "")]
    assert len(units.plan(tmp_path, files)) == 5
    assert texts(read_all(tmp_path, ["a.zip"])) == list(noise.values())


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


def test_packs_are_read_as_their_files(tmp_path, monkeypatch):
    own = tmp_path / "own"
    (own / "b").mkdir(parents=True)
    files = {
        "a.txt": "Größe und Übermut".encode("cp1252"),
        "b/c.txt": b"plain\r\n",
        "b/d.html": b"<!DOCTYPE html><p>A page.</p>",
        "e.txt.gz": gzip.compress(b"packed"),
        "f.jsonl": jsonl(*STORIES),
        "g.txt": b"",
        "h.txt": bytes(range(256)) * 4,
    }
    for name, data in files.items():
        (own / name).write_bytes(data)
    results = []
    for many in (1, 1000):
        monkeypatch.setattr(local_files, "MANY_FILES", many)
        raw = tmp_path / str(many)
        raw.mkdir()
        manifest = local_files.copy_files(own, raw)[0]
        notes = Notes()
        items = [
            item
            for unit in units.plan(raw, manifest)
            for piece in unit.pieces
            for item in units.read_piece(piece, cleaning(), notes)
        ]
        results.append((len(manifest), items, notes))
    assert results[0][0] == 1
    assert results[1][0] == len(files)
    assert results[0][1:] == results[1][1:]
