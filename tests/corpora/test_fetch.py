import gzip
import hashlib
import json

import pytest

from atlas.corpora.fetch import fetch_corpus
from atlas.corpora.manifest import read_manifest
from atlas.corpora.python_docs import docstrings
from atlas.corpora.registry import CORPORA
from atlas.errors import AtlasError
from atlas.params import CorpusParams


def fetch(tmp_path, name, path="none", mirror=None):
    corpus = CorpusParams(name=name, path=str(path))
    return fetch_corpus(corpus, tmp_path / "raw", mirror, tmp_path / "unfinished")


def test_python_docs_are_on_this_machine(tmp_path):
    metrics = fetch(tmp_path, "python-docs")
    assert metrics["files"] == 2
    assert metrics["bytes"] > 1_500_000
    for file in read_manifest(tmp_path / "raw"):
        assert (
            hashlib.sha256((tmp_path / "raw" / file.name).read_bytes()).hexdigest() == file.sha256
        )
        lines = (tmp_path / "raw" / file.name).read_text(encoding="utf-8").split("\n")[:-1]
        assert all(json.loads(line)["text"] for line in lines)


def test_docstrings_come_with_their_signatures(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/__init__.py").write_text('"""A package."""\n')
    (tmp_path / "pkg/mod.py").write_text(
        'class A:\n    """A class."""\n    def f(self, x=1):\n        """A method."""\n'
        "def g():\n    pass\n"
    )
    (tmp_path / "pkg/broken.py").write_text("def (:\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test/skipped.py").write_text('"""Not documentation."""\n')
    assert list(docstrings(tmp_path)) == [
        ("pkg", "module pkg\n\nA package."),
        ("pkg.mod", "class pkg.mod.A\n\nA class.\n\n\npkg.mod.A.f(self, x=1)\n\nA method."),
    ]


def test_own_files_are_copied_byte_for_byte(tmp_path):
    own = tmp_path / "own folder #1"
    (own / "süb").mkdir(parents=True)
    contents = {
        "a.txt": b"text\r\n\xff",
        "süb/b.jsonl": b'{"text": "x"}\n',
        "c.TXT.GZ": gzip.compress(b"packed"),
    }
    for name, content in contents.items():
        (own / name).write_bytes(content)
    (own / "picture.png").write_bytes(b"\x89PNG")
    (own / ".hidden.txt").write_bytes(b"no")
    metrics = fetch(tmp_path, "files", own)
    assert metrics == {
        "corpus": "files",
        "files": 3,
        "passed_over": 1,
        "bytes": sum(map(len, contents.values())),
    }
    for file in read_manifest(tmp_path / "raw"):
        assert (tmp_path / "raw" / file.name).read_bytes() == contents[file.name]


def test_a_single_file_is_a_corpus(tmp_path):
    (tmp_path / "one.txt").write_text("text")
    assert fetch(tmp_path, "files", tmp_path / "one.txt")["files"] == 1


@pytest.mark.parametrize("path", ["none", "empty"])
def test_no_files_is_an_error_that_names_the_key(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AtlasError, match=r"corpus.path: .*" + path):
        fetch(tmp_path, "files", tmp_path / path)


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_downloads_are_pinned(name):
    for file in CORPORA[name].files:
        assert file.url.startswith("https://")
        assert len(bytes.fromhex(file.sha256)) == 32
        assert file.bytes > 0


def test_shakespeare_from_the_mirror(tmp_path, corpora):
    metrics = fetch(tmp_path, "shakespeare", mirror=str(corpora))
    assert metrics == {
        "corpus": "shakespeare",
        "files": 1,
        "passed_over": 0,
        "bytes": 1_115_394,
    }


@pytest.mark.parametrize("damage", ["missing", "cut", "no json", "no manifest"])
def test_a_damaged_raw_folder_is_refused(tmp_path, damage):
    (tmp_path / "one.txt").write_text("text")
    fetch(tmp_path, "files", tmp_path / "one.txt")
    raw = tmp_path / "raw"
    match damage:
        case "missing":
            (raw / "one.txt").unlink()
        case "cut":
            (raw / "one.txt").write_text("t")
        case "no json":
            (raw / "manifest.json").write_text("{")
        case "no manifest":
            (raw / "manifest.json").unlink()
    with pytest.raises(AtlasError, match="dvc repro -f fetch"):
        read_manifest(raw)
