import gzip
import json

import pytest

from atlas.cleaning.clean import clean_corpus
from atlas.cleaning.documents import Document, DocumentWriter, read_documents
from atlas.corpora.manifest import RawFile, write_manifest
from atlas.errors import AtlasError
from tests.small import small_params, text


@pytest.fixture
def run(tmp_path):
    """Cleans raw files given as name=bytes."""

    def run_clean(files: dict[str, bytes], **changes):
        raw = tmp_path / "raw"
        raw.mkdir()
        for name, content in files.items():
            (raw / name).write_bytes(content)
        write_manifest(raw, "test", [RawFile.of(raw, name, "", "") for name in files])
        clean = small_params(**{f"clean.{key}": value for key, value in changes.items()}).clean
        (tmp_path / "clean").mkdir()
        metrics = clean_corpus(raw, tmp_path / "clean", clean)
        rejected = (tmp_path / "clean/rejected.jsonl").read_text().splitlines()
        splits = {
            split: list(read_documents(tmp_path / "clean" / split))
            for split in ("train", "val", "test")
        }
        return metrics, splits, [json.loads(line) for line in rejected]

    return run_clean


def lines(*texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def test_documents_are_partitioned(run):
    texts = [text(seed) for seed in range(300)]
    metrics, splits, rejected = run({"a.jsonl": lines(*texts)})
    kept = [document.text for documents in splits.values() for document in documents]
    assert sorted(kept) == sorted(texts)
    assert metrics["documents_in"] == metrics["documents_kept"] == 300
    assert metrics["split_by"] == "document"
    assert all(splits.values())
    assert not rejected


def test_equal_documents_never_leak(run):
    texts = [text(seed % 50) for seed in range(500)]
    _, splits, _ = run({"a.jsonl": lines(*texts)}, val=0.3, test=0.3)
    contents = [{document.text for document in documents} for documents in splits.values()]
    assert not contents[0] & contents[1] | contents[0] & contents[2] | contents[1] & contents[2]


def test_one_long_text_is_split_by_position(run):
    content = text(1, sentences=500)
    metrics, splits, _ = run(
        {"book.txt": content.encode("utf-16"), "b.txt.gz": gzip.compress(b"x " * 99)}
    )
    assert metrics["split_by"] == "position"
    book = [d for split in splits.values() for d in split if d.source == "book.txt"]
    assert "".join(part.text for part in book) == content


def test_each_rejection_has_a_reason(run):
    broken = (
        b'{"text": "good"}\n\n{"text": "cut\n{"no": "text"}\n{"text": null}\n{"text": 3}\n'
        b'[1]\n"string"\nNaN\n{\'text\': 1}\n{"text": "\xe9"}\n{"text": " "}\n'
        b'{"text": "half \\ud800 pair"}\n{"text": "one"}{"text": "two"}'
    )
    metrics, splits, rejected = run({"b.jsonl": broken, "long.txt": text(1, 200).encode()})
    reasons = {entry["id"]: entry["reason"] for entry in rejected}
    assert reasons == {
        "b.jsonl:3": "not_json",
        "b.jsonl:4": "no_text",
        "b.jsonl:5": "no_text",
        "b.jsonl:6": "no_text",
        "b.jsonl:7": "no_text",
        "b.jsonl:8": "no_text",
        "b.jsonl:9": "no_text",
        "b.jsonl:10": "not_json",
        "b.jsonl:11": "not_utf8",
        "b.jsonl:12": "empty",
        "b.jsonl:14": "not_json",
    }
    assert metrics["documents_in"] == 14
    assert metrics["documents_kept"] == 3
    assert metrics["rejected_not_json"] == 3
    assert any("half \ufffd pair".startswith(d.text) for s in splits.values() for d in s)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
        ("p.txt.gz", b"no gzip"),
        ("p.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 10_000)[:-20]),
        ("p.jsonl", b"\x89PNG\n" * 2000),
        ("p.jsonl", b"{}\n"),
    ],
)
def test_a_file_that_is_no_text_stops_or_is_rejected(run, name, content):
    with pytest.raises(AtlasError, match=rf"{name}: not a text file .*clean.bad_files=reject"):
        run({name: content})


def test_bad_files_can_be_set_aside(run):
    files = {
        "p.txt": bytes(1000),
        "good.txt": text(1, 200).encode(),
        "p.gz": gzip.compress(b"x " * 9999)[:-9],
        "p.jsonl": b"[]\n",
    }
    metrics, _, rejected = run(files, bad_files="reject")
    assert metrics["documents_kept"] == 1
    assert [(entry["id"], entry["reason"]) for entry in rejected] == [
        ("p.txt", "not_text"),
        ("p.gz", "broken_gzip"),
        ("p.jsonl", "not_text"),
    ]


def test_odd_lines_do_not_stop_the_rest(run):
    lines = [
        '{"text": "good one here", "source": "half \\ud800"}',
        '{"text": "x", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ]
    metrics, splits, _ = run({"a.jsonl": "\n".join(lines).encode(), "b.txt": text(1, 200).encode()})
    assert metrics["rejected_not_json"] == 1
    assert "half \ufffd" in {d.source for split in splits.values() for d in split}


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_an_empty_corpus_is_refused(run, content):
    with pytest.raises(AtlasError, match=r"no document is left of this corpus \(1 empty\)"):
        run({"a.txt": content})


def test_an_empty_split_is_refused(run):
    with pytest.raises(AtlasError, match=r"clean.(val|test): \1 gets nothing .*position"):
        run({"a.jsonl": lines("one", "two")}, split_by="document")


def test_no_test_split_may_be_asked_for(run):
    metrics, splits, _ = run({"a.txt": text(1, 200).encode()}, test=0.0)
    assert metrics["test_documents"] == 0
    assert not splits["test"]


def test_guesses_are_counted(run):
    metrics, _, _ = run({"a.txt": ("élève " * 300).encode("cp1252")})
    assert metrics["guessed_cp1252"] == 1


def test_the_source_of_a_line_is_kept(run):
    record = json.dumps({"text": "x " * 200, "source": "a book"}).encode()
    _, splits, _ = run({"a.jsonl": record})
    assert splits["train"][0].source == "a book"


def test_documents_come_back_from_several_shards(tmp_path):
    documents = [Document(str(n), "s", text(n) + "\u2028é\x00") for n in range(50)]
    with DocumentWriter(tmp_path / "d", shard_bytes=2000) as writer:
        for document in documents:
            writer.write(document)
    assert len(list((tmp_path / "d").iterdir())) > 3
    assert list(read_documents(tmp_path / "d")) == documents
    assert writer.characters == sum(len(document.text) for document in documents)


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "00000.jsonl").write_text('{"id": "a", "source": "s", "text": "t"}\n{"id": 1\n')
    with pytest.raises(AtlasError, match=r"00000.jsonl:2: no document"):
        list(read_documents(tmp_path))


def test_every_faulty_file_ends_in_documents_or_reasons(run, corpora):
    files = {
        path.name: path.read_bytes()
        for path in sorted((corpora / "dirty").iterdir())
        if path.suffix in (".txt", ".jsonl")
    }
    metrics, _, _ = run(files)
    assert metrics["rejected_empty"] == 3  # empty.txt, whitespace_only.txt, a line of broken.jsonl
    assert metrics["documents_kept"] > 70
