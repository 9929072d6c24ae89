import hashlib
import json

import pytest

from atlas.pipeline.files import (
    files_below,
    partial_path,
    put_in_place,
    remove,
    sha256,
    write_json,
    write_records,
)


def test_sha256_hashes_the_bytes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc" * 100_000)
    assert sha256(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_files_below_has_an_order_and_no_byte_code(tmp_path):
    for name in ("b/2.txt", "b/1.txt", "a.txt", "b/__pycache__/x.pyc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)]
    assert names == ["a.txt", "b/1.txt", "b/2.txt"]
    assert files_below(tmp_path / "a.txt") == [tmp_path / "a.txt"]


def test_a_folder_replaces_its_older_version(tmp_path):
    final = tmp_path / "out"
    final.mkdir()
    (final / "old").touch()
    partial = partial_path(final)
    partial.mkdir()
    (partial / "new").touch()
    put_in_place(partial, final)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in final.iterdir()] == ["new"]


def test_a_file_replaces_its_older_version(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_invalid_json_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_records_are_a_line_each_whatever_their_text(tmp_path):
    records = [{"text": "a\nb\r\n\u2028é 😀", "n": 1}, {"text": ""}]
    assert write_records(tmp_path / "a.jsonl", iter(records)) == 2
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == records
    assert "é 😀".encode() in lines[0]
    assert lines[-1] == b""
    assert write_records(tmp_path / "none.jsonl", []) == 0


def test_remove_takes_files_folders_and_nothing(tmp_path):
    (tmp_path / "d/e").mkdir(parents=True)
    (tmp_path / "f").touch()
    for name in ("d", "f", "none"):
        remove(tmp_path / name)
    assert not list(tmp_path.iterdir())
