import hashlib
import json
import shutil

import pytest

from atlas.corpora import fetch as module
from atlas.corpora.download import Download
from atlas.corpora.fetch import BOOK_URLS, GENERATORS, Corpus, book, fetch_corpus
from atlas.corpora.fetch import corpora as registry
from atlas.corpora.manifest import Manifest, read_raw_files
from atlas.corpora.python_docs import docstrings
from atlas.errors import AtlasError
from tests.small import small_params

TEXT = b"A short text.\n" * 50


def fetch(tmp_path, name, mirror=None, **params):
    changes = {f"corpus.{name}.{key}": value for key, value in params.items()}
    corpus = small_params(**{"corpus.name": name} | changes).corpus
    return fetch_corpus(corpus, tmp_path / "raw", mirror, tmp_path / "unfinished")


@pytest.mark.slow
def test_python_docs_need_no_network(tmp_path):
    metrics = fetch(tmp_path, "python-docs")
    assert metrics["files"] == 2
    assert metrics["bytes"] > 1_500_000
    for file in read_raw_files(tmp_path / "raw"):
        data = (tmp_path / "raw" / file.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file.sha256
        assert all(json.loads(line)["text"] for line in data.decode().split("\n")[:-1])


def test_docstrings_have_signatures(tmp_path):
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


@pytest.mark.parametrize(
    ("name", "params", "lines"),
    [
        ("arithmetic", {"examples": 50}, 50),
        ("stories", {"examples": 50}, 50),
        ("modular", {"modulus": 97}, 97**2),
    ],
)
def test_generated_files_are_in_the_manifest(tmp_path, name, params, lines):
    metrics = fetch(tmp_path, name, **params)
    (file,) = read_raw_files(tmp_path / "raw")
    assert (metrics["files"], metrics["bytes"]) == (1, file.bytes)
    assert (tmp_path / "raw" / file.name).read_text().count("\n") == lines


def test_the_schema_names_every_corpus():
    names = {*GENERATORS, *registry(), "files"}
    for name in names:
        assert small_params(**{"corpus.name": name}).corpus.name == name
    with pytest.raises(AtlasError, match=r"corpus\.name is 'other'"):
        small_params(**{"corpus.name": "other"})


@pytest.mark.parametrize("name", sorted(registry()))
def test_the_registry_is_complete(name):
    corpus = registry()[name]
    assert corpus.description
    assert corpus.licence
    assert len({file.name for file in corpus.files}) == len(corpus.files) > 0
    for file in corpus.files:
        (url,) = file.urls
        assert url.startswith("https://")
        assert " " not in url
        if name in ("shakespeare", "gutenberg", "novels"):
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.bytes > 0


def test_books_are_pinned_or_found_by_number():
    assert book(11).sha256
    other = book(123456)
    assert other.sha256 is None
    assert len(other.urls) == len(BOOK_URLS)
    assert other.urls[0] == "https://www.gutenberg.org/cache/epub/123456/pg123456.txt"


def test_unpinned_books_are_recorded_in_the_manifest(tmp_path, server, monkeypatch):
    urls = tuple(url.replace("https://www.gutenberg.org", server.url) for url in BOOK_URLS)
    monkeypatch.setattr("atlas.corpora.fetch.BOOK_URLS", urls)
    server.files = {"/files/99/99-8.txt": TEXT, "/cache/epub/98/pg98.txt": TEXT * 2}
    fetch(tmp_path, "gutenberg", books=[99, 98])
    files = read_raw_files(tmp_path / "raw")
    assert [(file.name, file.sha256) for file in files] == [
        ("pg99.txt", hashlib.sha256(TEXT).hexdigest()),
        ("pg98.txt", hashlib.sha256(TEXT * 2).hexdigest()),
    ]
    assert files[0].url == f"{server.url}/files/99/99-8.txt"


@pytest.mark.parametrize("name", ["tinystories", "babylm"])
def test_unpinned_corpora_are_downloaded(tmp_path, server, monkeypatch, name):
    known = registry()[name]
    files = [
        Download(file.name, (f"{server.url}/hub/{file.name}",), None, None) for file in known.files
    ]
    server.files = {f"/hub/{file.name}": TEXT for file in files}
    local = {name: Corpus(known.description, known.licence, tuple(files))}
    monkeypatch.setattr(module, "corpora", lambda: local)
    metrics = fetch(tmp_path, name)
    assert metrics["files"] == len(known.files)
    assert metrics["bytes"] == len(TEXT) * len(known.files)


def test_sections_of_a_tale_are_joined(tmp_path, server, monkeypatch):
    url = f"{server.url}/owner/repository/1234/folder"
    names = ["b-story.csv", "a-story.csv"]
    files = tuple(Download(name, (f"{url}/{name}",)) for name in names)
    table = 'section,text\n1,"One, {}"\n2, Two \n'
    server.files = {
        f"/owner/repository/1234/folder/{name}": table.format(name).encode() for name in names
    }
    joined = Download("tales.jsonl", (), "0" * 64, 1)
    corpus = Corpus("tales", "none", files, joined)
    monkeypatch.setattr(module, "corpora", lambda: {"fairytales": corpus})
    fetch(tmp_path, "fairytales")
    lines = (tmp_path / "raw/tales.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "id": "b",
        "source": "owner/repository:folder/b-story.csv",
        "text": "One, b-story.csv\n\nTwo",
    }
    assert len(lines) == 2
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {"tales.jsonl", "manifest.json"}


def test_a_tale_in_another_format_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_text("section,story\n1,One\n")
    with pytest.raises(AtlasError, match="no column text; the file changed upstream"):
        list(module._sections(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("name", "params", "files"),
    [
        ("shakespeare", {}, 1),
        ("gutenberg", {"books": [11, 74, 844, 972, 1065, 1342, 1661, 2591, 25063]}, 9),
        ("novels", {}, 79),
        ("fairytales", {}, 1),
    ],
)
def test_corpora_of_the_mirror(tmp_path, corpora, name, params, files):
    metrics = fetch(tmp_path, name, mirror=str(corpora), **params)
    assert metrics["files"] == files
    known = {file.name: file.sha256 for file in registry()[name].files}
    for file in read_raw_files(tmp_path / "raw"):
        assert known.get(file.name, file.sha256) == file.sha256


@pytest.mark.parametrize("damage", ["missing", "cut", "no json", "no manifest"])
def test_a_damaged_raw_folder_is_refused(tmp_path, damage):
    (tmp_path / "one.txt").write_text("text")
    fetch(tmp_path, "files", path=str(tmp_path / "one.txt"))
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
        read_raw_files(raw)


def fetch_mix(tmp_path, *mix, mirror=None, **changes):
    examples = {"corpus.stories.examples": 20, "corpus.arithmetic.examples": 30}
    values = {"corpus.name": "mix", "corpus.mix": list(mix)} | examples | changes
    corpus = small_params(**values).corpus
    return fetch_corpus(corpus, tmp_path / "raw", mirror, tmp_path / "unfinished")


@pytest.fixture
def own(tmp_path):
    """Two folders of the user's own text, with files of the same name."""
    for name in "ab":
        (tmp_path / f"own/{name}").mkdir(parents=True)
        (tmp_path / f"own/{name}/one.txt").write_text(name * 10)
    return tmp_path / "own"


def test_each_corpus_of_a_mix_has_a_folder(tmp_path, own):
    entries = [{"name": "files", "path": str(own / name)} for name in "ba"]
    metrics = fetch_mix(tmp_path, entries[0], "stories", "arithmetic", entries[1])
    files = read_raw_files(tmp_path / "raw")
    assert [(file.name, file.corpus, file.licence) for file in files] == [
        ("b/one.txt", "b", "the user's own"),
        ("stories/stories.jsonl", "stories", "CC0-1.0"),
        ("arithmetic/arithmetic.jsonl", "arithmetic", "CC0-1.0"),
        ("a/one.txt", "a", "the user's own"),
    ]
    assert (tmp_path / "raw/b/one.txt").read_text() == "b" * 10
    assert metrics["corpus"] == "mix"
    assert metrics["files"] == 4
    assert metrics["bytes"] == sum(file.bytes for file in files)
    assert (metrics["files.a"], metrics["bytes.a"], metrics["passed_over"]) == (1, 10, 0)
    assert Manifest.read(tmp_path / "raw/manifest.json").corpus == "files + stories + arithmetic"


def test_a_corpus_of_a_mix_that_fails_is_named(tmp_path, own):
    broken = {"name": "files", "path": str(own / "c")}
    with pytest.raises(AtlasError, match=r"^corpus\.mix: c: .*own/c does not exist; give a file"):
        fetch_mix(tmp_path, "stories", broken)
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(AtlasError, match=r"^corpus\.mix: shakespeare: .*ATLAS_MIRROR"):
        fetch_mix(tmp_path, "shakespeare", "stories", mirror=str(tmp_path / "nowhere"))


def test_an_optional_corpus_of_a_mix_may_fail(tmp_path, own, caplog):
    broken = {"name": "files", "path": str(own / "c"), "optional": True}
    metrics = fetch_mix(tmp_path, "stories", broken, {"name": "files", "path": str(own / "a")})
    assert metrics["files"] == 2
    assert {path.name for path in (tmp_path / "raw").iterdir()} == {"stories", "a", "manifest.json"}
    assert "corpus.mix: going on without c: " in caplog.text
    assert Manifest.read(tmp_path / "raw/manifest.json").corpus == "stories + files"
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(AtlasError, match=r"corpus\.mix: none of the corpora could be fetched"):
        fetch_mix(tmp_path, broken)


def test_text_that_dvc_does_not_watch_is_named(tmp_path, own, caplog):
    outside = {"name": "files", "path": str(own / "a")}
    fetch_mix(tmp_path, outside, **{"corpus.files.path": str(own)})
    assert not caplog.text
    shutil.rmtree(tmp_path / "raw")
    fetch_mix(tmp_path, outside)
    assert "own/a is outside of corpus.files.path (data/own)" in caplog.text


def test_books_of_two_corpora_of_the_mirror(tmp_path, corpora):
    changes = {"corpus.gutenberg.books": [11, 1342]}
    metrics = fetch_mix(tmp_path, "gutenberg", "shakespeare", mirror=str(corpora), **changes)
    assert (metrics["files.gutenberg"], metrics["bytes.shakespeare"]) == (2, 1_115_394)
