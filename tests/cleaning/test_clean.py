import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning import splits as splits_module
from atlas.cleaning.clean import REMOVED, clean_corpus, clean_item
from atlas.cleaning.documents import Document, read_documents, render_messages
from atlas.cleaning.reading.pieces import Notes, Rejection
from atlas.corpora.manifest import RawFile, write_manifest
from atlas.errors import AtlasError
from tests.cleaning.reading.raw_files import cleaning, read_all
from tests.small import small_params, text


@pytest.fixture
def run(tmp_path):
    """Clean raw files given as name=bytes."""

    def run_clean(files: dict[str, bytes], **changes):
        raw = tmp_path / "raw"
        raw.mkdir()
        for name, content in files.items():
            (raw / name).write_bytes(content)
        write_manifest(raw, "test", [RawFile.describe(raw, name, "", "") for name in files])
        clean = small_params(**{f"clean.{key}": value for key, value in changes.items()}).clean
        metrics, _ = clean_corpus(raw, tmp_path / "clean", clean, tmp_path / "unfinished")
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
    _, splits, _ = run({"a.jsonl": lines(*texts)}, val=0.3, test=0.3, duplicates=None)
    contents = [{document.text for document in documents} for documents in splits.values()]
    assert not contents[0] & contents[1] | contents[0] & contents[2] | contents[1] & contents[2]


def test_a_long_text_is_split_by_position(run):
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
        b'[1]\n"string"\nNaN\n{\'text\': 1}\n{"text": "<\xff>"}\n{"text": " "}\n'
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
        ("p.txt.gz", b"\x1f\x8b\x08no gzip"),
        ("p.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 10_000, mtime=0)[:-20]),
        ("p.jsonl", b"\x89PNG\n" * 2000),
        ("p.jsonl", b'{"text": 5}\n'),
    ],
)
def test_a_binary_or_damaged_file_stops_clean(run, name, content):
    with pytest.raises(AtlasError, match=rf"{name}: not readable as text .*clean.bad_files=reject"):
        run({name: content})


def test_conversations_keep_their_messages(run):
    answers = [text(seed, 30) for seed in range(20)]
    records = [
        {"messages": [
            {"role": "user", "content": "Donâ€™t?"},
            {"role": "assistant", "content": f"{answer}\u200b\r\n"},
        ]}
        for answer in answers
    ]  # fmt: skip
    lines = b"".join(json.dumps(record).encode() + b"\n" for record in records)
    metrics, documents, _ = run({"a.jsonl": lines}, split_by="document", duplicates=None)
    assert metrics["conversations"] == 20
    kept = [document for split in documents.values() for document in split]
    assert {each.messages[0]["content"] for each in kept} == {"Don’t?"}
    assert {each.messages[1]["content"].strip() for each in kept} == set(answers)
    assert all(each.text == render_messages(each.messages) for each in kept)


def test_a_missing_text_field_is_explained(run):
    expected = (
        r'^a.jsonl: no key "text" \(clean.text_field\); keys found: id, content; did you mean '
        r"content\? \(clean.bad_files=reject skips such files\)$"
    )
    with pytest.raises(AtlasError, match=expected):
        run({"a.jsonl": b'{"id": 1, "content": "one"}\n' * 2})


def test_bad_files_can_be_rejected(run):
    files = {
        "p.txt": bytes(1000),
        "good.txt": text(1, 200).encode(),
        "p.gz": gzip.compress(b"x " * 9999)[:-9],
        "p.jsonl": b'{"n": 5}\n',
    }
    metrics, _, rejected = run(files, bad_files="reject")
    assert metrics["documents_kept"] == 1
    assert [(entry["id"], entry["reason"]) for entry in rejected] == [
        ("p.txt", "not_text"),
        ("p.gz", "broken_gzip"),
        ("p.jsonl:1", "no_text"),
        ("p.jsonl", "no_text_key"),
    ]


def test_odd_lines_do_not_affect_others(run):
    lines = [
        '{"text": "good one here", "source": "half \\ud800"}',
        '{"text": "x", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ]
    metrics, splits, _ = run({"a.jsonl": "\n".join(lines).encode(), "b.txt": text(1, 200).encode()})
    assert metrics["rejected_not_json"] == 1
    assert "half \ufffd" in {d.source for split in splits.values() for d in split}


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_an_empty_corpus_is_refused(run, content):
    with pytest.raises(AtlasError, match=r"no documents are left after cleaning \(1 empty\)"):
        run({"a.txt": content})


def test_an_empty_split_is_refused(run):
    with pytest.raises(AtlasError, match=r"clean.(val|test): the \1 split is empty .*position"):
        run({"a.jsonl": lines("one", "two")}, split_by="document")


def test_the_test_split_is_optional(run):
    metrics, splits, _ = run({"a.txt": text(1, 200).encode()}, test=0.0)
    assert metrics["test_documents"] == 0
    assert not splits["test"]


def test_guesses_are_counted(run):
    metrics, _, _ = run({"a.txt": ("élève " * 300).encode("cp1252")})
    assert metrics["guessed_iso-8859-1"] == 1


def test_invalid_bytes_are_counted(run):
    metrics, splits, _ = run({"a.txt": ("élève " * 300).encode() + b"\xff\xfe"})
    assert metrics["replaced_bytes"] == 2
    assert splits["test"][0].text.endswith("\ufffd\ufffd")


def test_the_source_of_a_line_is_kept(run):
    record = json.dumps({"text": "x " * 200, "source": "a book"}).encode()
    _, splits, _ = run({"a.jsonl": record})
    assert splits["train"][0].source == "a book"


def test_documents_are_read_back_from_several_shards(run, monkeypatch, tmp_path):
    monkeypatch.setattr(splits_module, "MIN_SHARD", 2000)
    texts = [text(n) + "\u2028é" for n in range(150)]
    _, splits, _ = run({"a.jsonl": lines(*texts)})
    assert len(list((tmp_path / "clean/train").iterdir())) > 3
    kept = [document.text for documents in splits.values() for document in documents]
    assert sorted(kept) == sorted(text.replace("\u2028", "\n") for text in texts)


def test_a_damaged_shard_is_named(tmp_path):
    (tmp_path / "00000.jsonl").write_text('{"id": "a", "source": "s", "text": "t"}\n{"id": 1\n')
    with pytest.raises(AtlasError, match=r"00000.jsonl:2: not a document"):
        list(read_documents(tmp_path))


def test_faulty_files_give_documents_or_rejections(run, corpora):
    files = {
        path.name: path.read_bytes()
        for path in sorted((corpora / "dirty").iterdir())
        if path.suffix in (".txt", ".jsonl")
    }
    metrics, _, _ = run(files)
    assert metrics["rejected_empty"] == 3  # empty.txt, whitespace_only.txt, a line of broken.jsonl
    assert metrics["documents_kept"] > 50


def test_every_change_is_counted_under_its_name(run):
    book = (
        "The Project Gutenberg EBook of A, by B\r\n\r\n"
        "*** START OF THIS PROJECT GUTENBERG EBOOK A ***\r\n\r\n"
        "Produced by C\r\n\r\n"
        + "It wasnâ€™t he\u200bre.\x07 e\u0301 and then, at last, the river.\r\n"
        * 50
        + "\r\n"
        "*** END OF THIS PROJECT GUTENBERG EBOOK A ***\r\n"
    )
    metrics, splits, _ = run({"a.txt": book.encode()})
    kept = "".join(document.text for documents in splits.values() for document in documents)
    assert kept == "It wasn’t here. é and then, at last, the river.\n" * 50
    assert {
        key for key, count in metrics.items() if key.startswith(("changed_", "removed_")) and count
    } == {
        "changed_mojibake",
        "changed_line_ends",
        "removed_control_characters",
        "removed_zero_width",
        "changed_compose",
        "changed_gutenberg_books",
        "removed_gutenberg_header",
        "removed_gutenberg_footer",
        "removed_gutenberg_credits",
        "removed_blank_lines",
    }
    assert metrics["changed_mojibake"] == metrics["removed_control_characters"] == 50


MENU, LICENCE = "Home | About | Contact", "All rights reserved."


def test_repeated_lines_are_removed(run):
    texts = [text(seed) for seed in range(60)]
    pages = [f"{MENU}\n\n{each}\n{LICENCE}\n" for each in texts]
    metrics, splits, rejected = run(
        {"a.jsonl": lines(*pages, f"{MENU}\n{LICENCE}", "short")},
        repeated_lines=0.5,
        filters=["short"],
    )
    kept = [document.text for documents in splits.values() for document in documents]
    assert sorted(kept) == sorted(texts)
    boilerplate = len(f"{MENU}\n\n\n{LICENCE}\n")
    assert metrics["removed_repeated_lines"] == 60 * boilerplate + len(f"{MENU}\n{LICENCE}")
    assert {each["reason"]: each["id"] for each in rejected} == {
        "repeated_lines": "a.jsonl:61",
        "short": "a.jsonl:62",
    }


def test_repeated_lines_stay_by_default(run):
    pages = [f"{MENU}\n\n{text(seed)}" for seed in range(60)]
    metrics, splits, _ = run({"a.jsonl": lines(*pages)})
    kept = [document.text for documents in splits.values() for document in documents]
    assert sorted(kept) == sorted(pages)
    assert metrics["removed_repeated_lines"] == 0


def test_every_step_can_be_switched_off(run):
    raw = "It wasnâ€™t he\u200bre.\x07 e\u0301 and then, at last, the river.\n" * 50
    kept = {
        "fix_mojibake": False,
        "unicode_normalization": None,
        "remove_control_characters": False,
    }
    _, splits, _ = run(
        {"a.txt": raw.encode()}, **kept, remove_zero_width=False, strip_gutenberg=False
    )
    assert "".join(d.text for documents in splits.values() for d in documents) == raw


def test_duplicates_are_rejected_with_their_originals(run):
    texts = [text(seed, 20) for seed in range(200)]
    near = texts[5].replace("river", "brook", 1).upper() + " and so on."
    metrics, _, rejected = run({"a.jsonl": lines(*texts, texts[3], near)})
    assert metrics["documents_kept"] == 200
    assert [(entry["id"], entry["reason"]) for entry in rejected] == [
        ("a.jsonl:201", "exact_duplicate"),
        ("a.jsonl:202", "near_duplicate"),
    ]
    assert rejected[0]["detail"] == "of a.jsonl:4"
    assert rejected[1]["detail"].startswith("of a.jsonl:6, Jaccard index 0.")


@pytest.mark.parametrize(("duplicates", "kept"), [("near", 100), ("exact", 101), (None, 102)])
def test_the_kind_of_duplicates_can_be_chosen(run, duplicates, kept):
    texts = [text(seed, 20) for seed in range(100)]
    files = {"a.jsonl": lines(*texts, texts[3], texts[3] + " Again.")}
    metrics, _, _ = run(files, duplicates=duplicates)
    assert metrics["documents_kept"] == kept


def test_distinct_texts_have_no_leakage(run):
    texts = [text(seed, 20) for seed in range(300)]
    apart, _, _ = run({"a.jsonl": lines(*texts)}, val=0.3)
    assert apart["val_leakage"] == apart["test_leakage"] == 0


def test_leakage_is_1_if_val_repeats_train(run):
    repeated = "\n".join([text(1, 100)] * 5)
    metrics, _, _ = run({"a.txt": repeated.encode()}, val=0.2, test=0.2)
    assert metrics["split_by"] == "position"
    assert metrics["val_leakage"] == metrics["test_leakage"] == 1


def test_filters_reject_with_their_names(run):
    texts = [text(seed, 20) for seed in range(150)]
    metrics, _, rejected = run({"a.jsonl": lines(*texts, "Too short.")}, filters=["short"])
    assert metrics["rejected_short"] == 1
    assert rejected[0]["detail"] == "2 words, fewer than 50"


def test_statistics_describe_each_split(run, tmp_path):
    texts = [text(seed, 20) for seed in range(200)]
    metrics, splits, _ = run({"a.jsonl": lines(*texts)})
    report = json.loads((tmp_path / "clean/statistics.json").read_text())
    for split, documents in splits.items():
        assert report[split]["documents"] == len(documents) == metrics[f"{split}_documents"]
        assert report[split]["characters"] == sum(len(d.text) for d in documents)
        words = sum(len(d.text.split()) for d in documents)
        assert report[split]["words"] == words == metrics[f"{split}_words"]


def test_documents_of_a_mix_know_their_corpus(tmp_path, caplog):
    raw = tmp_path / "raw"
    files = {
        "stories/a.jsonl": lines(*map(text, range(150))),
        "own/b.jsonl": b'{"text": "A record of its own.", "source": "mine"}\n'
        + lines(*map(text, range(100, 250))),  # fifty are copies
        "bad/c.jsonl": lines(" ", ""),
    }
    for name, content in files.items():
        (raw / name).parent.mkdir(parents=True)
        (raw / name).write_bytes(content)
    described = [RawFile.describe(raw, n, "", "", n.partition("/")[0]) for n in files]
    write_manifest(raw, "mix", described)
    for split_by in ("document", "position"):
        clean = small_params(**{"clean.split_by": split_by}).clean
        metrics, _ = clean_corpus(raw, tmp_path / split_by, clean, tmp_path / f"u{split_by}")
        for corpus, documents in {"stories": 150, "own": 101, "bad": 0}.items():
            found = [
                document
                for split in ("train", "val", "test")
                for document in read_documents(tmp_path / split_by / split)
                if document.corpus == corpus
            ]
            assert len({each.id.partition("#")[0] for each in found}) == documents
            assert all(each.id.startswith(f"{corpus}/") for each in found)
            counts = [metrics[f"{each}_documents.{corpus}"] for each in ("train", "val", "test")]
            assert sum(counts) == len(found)
        assert metrics["rejected_exact_duplicate"] == 50
        report = json.loads((tmp_path / split_by / "statistics.json").read_text())
        train = report["train"]["corpora"]
        assert train["own"]["documents"] == metrics["train_documents.own"]
        assert sum(each["characters"] for each in train.values()) == report["train"]["characters"]
        assert sum(each["words"] for each in train.values()) == report["train"]["words"]
    assert "corpus.mix: no text of bad is left to train on" in caplog.text


FRAGMENTS = (
    *(
        "word ",
        "and more, ",
        "two\n",
        "\n",
        "\n \n",
        "\rx",
        "\f",
        "\v",
        "\x85",
        "\u2028",
        "\u200b",
        "\u00ad",
    ),
    *(
        "\u202a",
        "\u200d",
        "\ufeff",
        "\x1b[31m",
        "a\b",
        "\x92",
        "\u0939\u0948\u0902",
        "\u6771",
        "\n<|endoftext|>\n",
    ),
    *("\nThe Project Gutenberg EBook of X, by Y\n\n", "Title: X\n\n", "\nProduced by A and B\n\n"),
    *("\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n", "\nEnd of Project Gutenberg's X\n"),
    *("\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n", "\n[Transcriber's Note: ok]\n\n"),
)


@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.text("ab \n", max_size=300), max_size=40),
    st.sampled_from(["auto", "file", "paragraph", "line", "separator"]),
    st.booleans(),
)
@settings(deadline=None)
def test_every_character_is_kept_or_counted(tmp_path_factory, fragments, documents, notes_too):
    content = "Text " + "".join(fragments)  # a byte order mark at the start is no text
    folder = tmp_path_factory.mktemp("raw")
    (folder / "a.txt").write_text(content, encoding="utf-8", newline="")
    changes = {"documents": documents, "remove_transcriber_notes": notes_too}
    changes |= {"unicode_normalization": None, "fix_mojibake": False}
    notes = Notes()
    items = read_all(folder, ["a.txt"], notes, **changes)
    cleaned = [each for item in items for each in clean_item(item, cleaning(**changes), notes)]
    kept = sum(len(each.text) for each in cleaned if isinstance(each, Document))
    removed = sum(notes.counts[kind] for kind in REMOVED)
    if any(isinstance(each, Rejection) for each in cleaned):
        assert {each.reason for each in cleaned if isinstance(each, Rejection)} == {"empty"}
        assert kept + removed <= len(content)
    else:
        assert kept + removed == len(content)


def test_a_wrong_declaration_is_reported_once(run, caplog):
    line = "Le café était fermé à Noël, l’été où la fenêtre donnait sur la forêt.\n"
    page = f'<html><head><meta charset="utf-8"></head><body><p>{line * 40}</p></body></html>'
    metrics, splits, _ = run({"p.html": page.encode("cp1252")})
    assert "café" in splits["train"][0].text
    assert metrics["guessed_cp1252"] == 1
    assert caplog.text.count("p.html: declares utf-8, but reads as cp1252") == 1
