"""Copying the user's own files, with everything a folder can contain."""

import errno
import gzip
import logging
import os
import socket
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.corpora import local_files as module
from atlas.corpora.formats import SUFFIXES
from atlas.corpora.local_files import SMALL, copy_files
from atlas.corpora.manifest import PACKS, RawFile, read_pack
from atlas.errors import AtlasError

BINARY = bytes(range(256)) * 4
NOTHING = {"passed_over": 0, "unreadable": 0}  # left out
pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and odd names")


@pytest.fixture
def copied(tmp_path):
    """Copy a folder and compare each copy with its source."""

    def copy(source):
        copies = tmp_path / "raw"
        copies.mkdir()
        raw_files, left_out = copy_files(source, copies)
        files = {file.name: Path(file.url) for file in raw_files}
        for file in raw_files:
            assert file == RawFile.describe(copies, file.name, file.url, file.licence)
        there = {
            path.relative_to(copies).as_posix() for path in copies.rglob("*") if path.is_file()
        }
        assert there == set(files)
        for name, original in files.items():
            assert (copies / name).read_bytes() == original.read_bytes()
        return files, left_out

    return copy


def warnings(caplog) -> list[str]:
    messages = [record.getMessage() for record in caplog.records]
    assert all("\n" not in message and message.encode() for message in messages)
    return messages


def test_files_of_known_formats_are_copied(own, copied):
    for number, suffix in enumerate(SUFFIXES):
        (own / f"{number}{suffix.upper()}").write_bytes(BINARY)  # clean reports that it is not one
    files, left_out = copied(own)
    assert len(files) == len(SUFFIXES) + 1
    assert left_out["passed_over"] == 0


@pytest.mark.parametrize("name", ["README", "a.txt.bak", "a.2024", "Makefile", "wiki_00", "a.b.c"])
def test_files_of_unknown_suffix_are_copied_if_they_are_text(own, copied, caplog, name):
    (own / name).write_bytes("text für alle\n".encode("utf-16"))
    assert list(copied(own)[0]) == sorted([name, "good.txt"])
    (own / name).write_bytes(gzip.compress(b"text"))
    assert not copy_files(own, own.parent / "raw2")[1]["passed_over"]
    assert warnings(caplog) == []


def test_files_that_are_not_text_are_passed_over_and_named(own, copied, caplog):
    contents = {
        "a.png": b"\x89PNG\r\n",
        "drawing.svg": b"<svg/>",
        "library.so": b"\x7fELF" + BINARY,
        "noise": BINARY,
        "old.doc": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + BINARY,
        "letter.rtf": b"{\\rtf1 Hello}",
    }
    for name, content in contents.items():
        (own / name).write_bytes(content)
    files, left_out = copied(own)
    assert list(files) == ["good.txt"]
    assert left_out == {"passed_over": len(contents), "unreadable": 0}
    (line,) = warnings(caplog)
    assert "passed over 6 files" in line
    assert all(name in line for name in contents)
    assert "save it as .docx" in line


def test_a_warning_names_a_few_of_many_files(own, copied, caplog):
    for number in range(900):
        (own / f"{number}.bin").write_bytes(BINARY)
    assert copied(own)[1]["passed_over"] == 900
    (line,) = warnings(caplog)
    assert "900 files" in line
    assert len(line) < 300


def test_hidden_files_are_ignored(own, copied):
    (own / ".git").mkdir()
    (own / ".git/a.txt").write_bytes(b"x")
    (own / ".b.txt").write_bytes(b"x")
    assert copied(own) == ({"good.txt": own / "good.txt"}, NOTHING)


def test_odd_names_are_copied(own, copied, caplog):
    names = [
        "a b.txt",
        "süß.txt",
        "a#1.txt",
        "100%.txt",
        "-rf.txt",
        "quo\"te'.txt",
        "new\nline.txt",
    ]
    names += ["A.txt", "a.txt", *(unicodedata.normalize(form, "é.txt") for form in ("NFC", "NFD"))]
    for number, name in enumerate(names):
        (own / name).write_bytes(str(number).encode())
    assert set(copied(own)[0]) == {"good.txt", *names}
    assert warnings(caplog) == []


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(min_size=1, max_size=12), max_size=6))
def test_any_valid_name_is_copied(tmp_path_factory, stems):
    source, copies = (tmp_path_factory.mktemp(name) for name in ("source", "copies"))
    made = {"a.txt"}
    (source / "a.txt").write_bytes(b"")
    for stem in stems:
        name = f"{stem}.txt"
        if (
            "/" in name
            or "\0" in name
            or name.startswith(".")
            or len(name.encode(errors="ignore")) > 99
        ):
            continue
        (source / name).write_bytes(stem.encode(errors="ignore"))
        made.add(name)
    assert {file.name for file in copy_files(source, copies)[0]} == made


def test_files_are_sorted_by_name(own, copied):
    (own / "b").mkdir()
    for name in ["b/z.txt", "b.txt", "a.txt", "c.txt"]:
        (own / name).write_bytes(b"x")
    assert list(copied(own)[0]) == ["a.txt", "b.txt", "b/z.txt", "c.txt", "good.txt"]


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    place = os.open(path.parent, os.O_RDONLY)
    try:  # socket names must be short
        socket.socket(socket.AF_UNIX).bind(f"/proc/self/fd/{place}/{path.name}")
    finally:
        os.close(place)


def dangling(path: Path) -> None:
    path.symlink_to("nowhere.txt")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def link_up(path: Path) -> None:
    path.symlink_to(path.parent)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def not_utf8(path: Path) -> None:
    Path(os.fsdecode(os.fsencode(path.parent) + b"/bad\xff.txt")).write_bytes(b"x")


def folder_not_utf8(path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(path.parent) + b"/bad\xff"))
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"x")


@pytest.mark.skipif(sys.platform != "linux", reason="names and devices of Linux")
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (pipe, "it is a pipe"),
        (listening, "it is a pipe, a socket"),
        (device, "or a device"),
        (dangling, "No such file"),
        (loop, "Too many levels"),
        (link_up, "already part of the corpus"),
        (not_utf8, "name is not UTF-8"),
        (folder_not_utf8, "name is not UTF-8"),
    ],
)
def test_unreadable_files_are_skipped_with_a_warning(own, copied, caplog, make, reason):
    make(own / "strange.txt")
    files, left_out = copied(own)
    assert list(files) == ["good.txt"]
    assert left_out["unreadable"] == 1
    (note,) = warnings(caplog)
    assert reason in note
    assert "strange.txt" in note or "bad" in note


def test_links_are_followed_and_no_folder_is_read_twice(own, copied, tmp_path, caplog):
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/o.txt").write_bytes(b"outside")
    (outside / "deep/back").symlink_to(own)
    (own / "a-link.txt").symlink_to(outside / "deep/o.txt")
    (own / "a-folder").symlink_to(outside)
    (own / "b-folder").symlink_to(outside)
    (own / "z").mkdir()
    (own / "z/z.txt").write_bytes(b"z")
    (own / "a-to-z").symlink_to(own / "z")
    files, _ = copied(own)
    assert list(files) == ["a-folder/deep/o.txt", "a-link.txt", "good.txt", "z/z.txt"]
    skipped = {note.split(" skipped")[0].rsplit("own/")[-1] for note in warnings(caplog)}
    assert skipped == {"b-folder", "a-to-z", "a-folder/deep/back"}


def test_a_vanished_file_is_skipped(own, copied, caplog, monkeypatch):
    (own / "gone.txt").write_bytes(b"x")
    walk = module._walk

    def and_then_it_goes(*arguments):
        found = list(walk(*arguments))
        (own / "gone.txt").unlink()
        return found

    monkeypatch.setattr(module, "_walk", and_then_it_goes)
    assert copied(own)[1]["unreadable"] == 1
    assert "gone.txt skipped: No such file" in warnings(caplog)[0]


@pytest.mark.parametrize(("changes", "kept"), [(1, True), (2, False)])
def test_a_changing_file_is_copied_again(own, copied, caplog, monkeypatch, changes, kept):
    log = own / "log.txt"
    log.write_bytes(b"one\n")
    copyfileobj, left = module.shutil.copyfileobj, [changes]

    def while_it_grows(source, copy):
        copyfileobj(source, copy)
        if Path(source.name) == log and left[0]:
            left[0] -= 1
            with log.open("ab") as file:
                file.write(b"more\n")

    monkeypatch.setattr(module.shutil, "copyfileobj", while_it_grows)
    files, _ = copied(own)
    assert ("log.txt" in files) is kept
    assert len(warnings(caplog)) == (not kept)


def test_an_io_error_leaves_no_partial_copy(own, copied, caplog, monkeypatch):
    (own / "bad.txt").write_bytes(b"x" * 100)
    copyfileobj = module.shutil.copyfileobj

    def fails(source, copy):
        if Path(source.name).name == "bad.txt":
            copy.write(b"half")
            raise OSError(errno.EIO, "Input/output error")
        copyfileobj(source, copy)

    monkeypatch.setattr(module.shutil, "copyfileobj", fails)
    assert copied(own)[1]["unreadable"] == 1
    assert "Input/output error" in warnings(caplog)[0]


def test_a_full_disk_while_copying_raises(own, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.shutil, "copyfileobj", full)
    (tmp_path / "raw").mkdir()
    with pytest.raises(OSError, match="No space left"):
        copy_files(own, tmp_path / "raw")


def refusal(source, tmp_path) -> str:
    with pytest.raises(AtlasError) as error:
        copy_files(source, tmp_path)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_corpus_without_readable_files_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    dangling(tmp_path / "own/a.txt")
    assert "could be read (1 skipped" in refusal(tmp_path / "own", tmp_path)


def test_a_folder_without_texts_is_refused(tmp_path):
    (tmp_path / "own").mkdir()
    assert "own contains no files" in refusal(tmp_path / "own", tmp_path)
    (tmp_path / "own/a.png").write_bytes(b"x")
    assert "only files that are not text (a.png)" in refusal(tmp_path / "own", tmp_path)


def test_a_missing_path_is_refused(tmp_path):
    assert "corpus.files.path: " in refusal(tmp_path / "none", tmp_path)


def test_a_pipe_is_refused(tmp_path):
    pipe(tmp_path / "own.txt")
    assert "neither a file nor a folder" in refusal(tmp_path / "own.txt", tmp_path)


def test_a_single_file_is_a_corpus(own, copied):
    assert copied(own / "good.txt") == ({"good.txt": own / "good.txt"}, NOTHING)


needs_root = pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="only root can drop its rights"
)


def as_nobody(action) -> int:
    """Run an action in a child process without root rights; return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os._exit(action())
        except BaseException:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_root
@pytest.mark.parametrize("forbidden", ["secret.txt", "secret"])
def test_files_without_permission_are_skipped(own, tmp_path, capfd, forbidden):
    (own / "secret").mkdir()
    (own / "secret/a.txt").write_bytes(b"x")
    (own / "secret.txt").write_bytes(b"x")
    (own / forbidden).chmod(0)
    copies = tmp_path / "raw"
    copies.mkdir()
    copies.chmod(0o777)
    open_to_all(tmp_path)

    def action() -> int:
        logging.basicConfig(force=True)  # warnings to stderr
        files, left_out = copy_files(own, copies)
        return 0 if (len(files), left_out["unreadable"]) == (2, 1) else 1

    assert as_nobody(action) == 0
    assert f"{forbidden} skipped: Permission denied" in capfd.readouterr().err


@needs_root
def test_a_corpus_without_permission_is_refused(own, tmp_path):
    own.chmod(0)
    open_to_all(tmp_path)

    def action() -> int:
        try:
            copy_files(own, tmp_path / "raw")
        except AtlasError as error:
            return 0 if "own: Permission denied" in str(error) else 1
        return 2

    assert as_nobody(action) == 0


def open_to_all(folder: Path) -> None:
    """Open pytest's private folders to other users."""
    for parent in [folder, *folder.parents]:
        if parent.name.startswith(("pytest-", "popen-", "test_")):
            parent.chmod(0o755)


def test_many_small_files_are_packed(own, tmp_path):
    names = [f"poems/{number}.txt" for number in range(1000)]
    (own / "poems").mkdir()
    for number, name in enumerate(names):
        (own / name).write_text(f"poem {number}\n", newline="\n")
    (own / "large.txt").write_bytes(b"x" * (SMALL + 1))
    (own / "image.bin").write_bytes(BINARY)
    raw = tmp_path / "raw"
    raw.mkdir()
    files, left_out = copy_files(own, raw)
    assert left_out["passed_over"] == 1
    names = [*names, "good.txt"]
    assert {file.name: file.packed for file in files} == {
        "large.txt": None,
        f"{PACKS}/000000.pack": len(names),
    }
    packed = dict(read_pack(raw / PACKS / "000000.pack"))
    assert sorted(packed) == sorted(names)
    assert all((own / name).read_bytes() == data for name, data in packed.items())
    for file in files:
        described = RawFile.describe(raw, file.name, file.url, file.licence)
        assert replace(file, packed=None) == described


def test_packs_have_a_size(own, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MANY_FILES", 3)
    monkeypatch.setattr(module, "PACK", 10)
    for name in "abcd":
        (own / f"{name}.txt").write_bytes(name.encode() * 4)
    raw = tmp_path / "raw"
    raw.mkdir()
    packs = [dict(read_pack(raw / file.name)) for file in copy_files(own, raw)[0]]
    assert [sorted(pack) for pack in packs] == [
        ["a.txt", "b.txt"],
        ["c.txt", "d.txt"],
        ["good.txt"],
    ]
