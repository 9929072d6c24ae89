import csv
from html.parser import HTMLParser

import pytest

from atlas.cleaning.documents import Document
from atlas.tokens.encode import encode_corpus
from atlas.tokens.report import VocabularyReport, print_pieces
from atlas.tokens.tokenizer import Tokenizer, visible
from tests.small import small_params, text, write_documents


@pytest.fixture(scope="module")
def made(tmp_path_factory, tokenizer):
    root = tmp_path_factory.mktemp("report")
    tokenizer.save(root / "tokenizer")
    texts = {"train": [text(n) for n in range(5)], "val": ["<b>the</b> & lamp\n\u2603"], "test": []}
    for split, each in texts.items():
        write_documents(root / "clean" / split, [Document("d", "s", one) for one in each])
    index, counts = encode_corpus(
        root / "clean", root / "tokenizer", root / "tokens", small_params().tokenize
    )
    return root, VocabularyReport(Tokenizer.load(root / "tokenizer"), index, counts), texts


def test_the_metrics_are_true(made, tokenizer):
    _, report, texts = made
    metrics = report.metrics()
    ids = [identity for each in texts["train"] for identity in tokenizer.encode(each)]
    size = sum(len(each) for each in texts["train"])
    assert metrics["vocab_size"] == tokenizer.vocab_size
    assert metrics["train_bytes_per_token"] == pytest.approx(size / len(ids))
    assert metrics["test_bytes_per_token"] == 0
    assert metrics["train_unknown_tokens"] == 0
    unused = [i for i in range(tokenizer.vocab_size) if tokenizer.is_text(i) and i not in ids]
    assert report.unused == unused
    assert metrics["unused_pieces"] == len(unused) > 0
    longest = max(len(tokenizer.piece(i)) for i in range(5, tokenizer.vocab_size) if i > 260)
    assert len(metrics["longest_pieces"].split()[0]) == longest
    assert ids.count(report.rarest[0]) == 1
    assert all(tokenizer.is_text(identity) for identity in report.rarest)


def test_the_table_has_every_piece(made, tokenizer):
    root, report, _ = made
    report.write_pieces(root / "pieces.csv")
    with (root / "pieces.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["piece"] for row in rows] == [
        tokenizer.escaped(identity) for identity in range(tokenizer.vocab_size)
    ]
    assert sum(int(row["train"]) for row in rows) == report.index.splits["train"].tokens
    assert int(rows[tokenizer.eos]["train"]) == 5


class Text(HTMLParser):
    """The pieces in the sample, and all tags."""

    def __init__(self):
        super().__init__()
        self.tags, self.pieces, self.classes = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        names = dict(attributes).get("class", "")
        if tag == "span" and names.startswith("c"):
            self.pieces.append("")
            self.classes.append(names)

    def handle_endtag(self, tag):
        if tag == "div":
            self.pieces.append(None)

    def handle_data(self, data):
        if self.pieces and self.pieces[-1] is not None:
            self.pieces[-1] += data


def test_the_page_shows_a_text_in_pieces(made, tokenizer):
    root, report, texts = made
    report.write_page(root / "page.html", root / "clean/val")
    page = (root / "page.html").read_text(encoding="utf-8")
    found = Text()
    found.feed(page)
    shown = [piece.strip() for piece in found.pieces if piece is not None]
    expected = [visible(tokenizer.piece(i)) for i in tokenizer.encode(texts["val"][0])]
    assert shown[: len(expected)] == expected
    assert sum("not-text" in names for names in found.classes) >= 3  # the bytes of the snowman
    assert "b" not in found.tags  # markup in the text stays text
    assert "http" not in page.replace("http-equiv", "")
    report.write_page(root / "again.html", root / "clean/val")
    assert (root / "again.html").read_text(encoding="utf-8") == page


def test_a_split_without_text_has_a_page_too(made):
    root, report, _ = made
    report.write_page(root / "empty.html", root / "clean/test")
    assert "The first 0 tokens" in (root / "empty.html").read_text(encoding="utf-8")


def test_pieces_are_printed(tokenizer, capsys):
    print_pieces(tokenizer, "the\nlamp \u2603")
    printed = capsys.readouterr().out
    ids = tokenizer.encode("the\nlamp \u2603")
    lines = printed.splitlines()
    assert [line.split() for line in lines[1:-1]] == [
        [str(identity), visible(tokenizer.piece(identity))] for identity in ids
    ]
    assert lines[-1] == f"{len(ids)} tokens, 12 bytes, {12 / len(ids):.2f} bytes per token"
    print_pieces(tokenizer, "")
    assert "0 tokens, 0 bytes" in capsys.readouterr().out


def test_a_mix_has_a_row_for_each_corpus(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer")
    documents = [Document(f"d{n}", "s", text(n), "ab"[n > 2]) for n in range(5)]
    for split in ("train", "val", "test"):
        write_documents(tmp_path / "clean" / split, documents)
    index, counts = encode_corpus(
        tmp_path / "clean", tmp_path / "tokenizer", tmp_path / "tokens", small_params().tokenize
    )
    report = VocabularyReport(tokenizer, index, counts)
    ids = sum(len(tokenizer.encode(text(n))) for n in (3, 4))
    expected = sum(len(text(n)) for n in (3, 4)) / ids
    assert report.metrics()["val_bytes_per_token.b"] == pytest.approx(expected)
    report.write_page(tmp_path / "page.html", tmp_path / "clean/val")
    page = (tmp_path / "page.html").read_text()
    assert "<td>train, a</td><td>3</td>" in page
    assert "<td>test, b</td><td>2</td>" in page
