"""Tables of documents, sources and confusion, on scores written by hand."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.scores import Scores, document_numbers
from atlas.evaluation.tables import (
    OTHER,
    confusion_table,
    corpus_metrics,
    document_sums,
    source_sums,
    with_averages,
    without_tags,
    write_score_tables,
    write_table,
)
from atlas.tokens.shards import TokenSplit
from tests.small import EOS, write_documents, write_tokens


def scores_of(targets, predicted=None, losses=None):
    count = len(targets)
    return Scores(
        np.zeros(count, np.int32),
        np.array(targets, np.int32),
        np.array(targets if predicted is None else predicted, np.int32),
        np.array(np.ones(count) if losses is None else losses, np.float32),
        np.ones(count, np.float32),
    )


def split_of(folder, documents, **options):
    return TokenSplit(write_tokens(folder, {"val": [documents]}, **options), "val")


def test_each_document_sums_its_tokens(tmp_path):
    split = split_of(tmp_path, [[5, 6, EOS], [7, EOS]])
    scores = scores_of([5, 6, EOS, 7, EOS], [5, 9, EOS, 9, EOS], np.log([2, 2, 2, 4, 4]))
    documents = [Document("a", "x", "äb"), Document("b", "y", "c")]
    table = with_averages(document_sums(scores, split, documents), questions=False)
    assert table["tokens"].tolist() == [3, 2]
    assert table["bytes"].tolist() == [3, 1]
    assert table["loss"].tolist() == pytest.approx([np.log(2), np.log(4)])
    assert table["bits_per_byte"].tolist() == pytest.approx([1, 4])
    assert table["accuracy"].tolist() == pytest.approx([2 / 3, 1 / 2])


def test_a_question_is_right_or_wrong_as_a_whole(tmp_path):
    documents = [[5, 9, 6, EOS], [7, 7, 9, 8, 8, EOS], [9, 9, 9, EOS]]
    split = split_of(tmp_path, documents, windows="padded", separator=9)
    assert document_numbers(split).tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    scores = scores_of([6, EOS, 8, 8, EOS, 9, 9, EOS], [6, EOS, 8, 3, EOS, 9, 9, EOS])
    question_documents = [Document(str(n), "s", "5 = 6") for n in range(3)]
    table = with_averages(document_sums(scores, split, question_documents), questions=True)
    assert table["accuracy"].tolist() == [1, 0, 1]
    assert table["bits_per_byte"].isna().all()
    total = with_averages(
        source_sums(document_sums(scores, split, question_documents)), questions=True
    )
    assert total["accuracy"].tolist() == pytest.approx([2 / 3])
    assert total["documents"].tolist() == [3]


def test_sources_add_up_with_the_largest_first(tmp_path):
    split = split_of(tmp_path, [[5, EOS], [6, EOS], [7, 7, 7, 7, EOS]])
    documents = [Document("1", "x", "a"), Document("2", "x", "b"), Document("3", "y", "cccc")]
    scores = scores_of([5, EOS, 6, EOS, 7, 7, 7, 7, EOS], losses=[1, 1, 3, 3, 2, 2, 2, 2, 2])
    table = with_averages(source_sums(document_sums(scores, split, documents)), questions=False)
    assert table["source"].tolist() == ["y", "x"]
    assert table["loss"].tolist() == pytest.approx([2, 2])
    assert table["documents"].tolist() == [1, 2]


def test_a_mix_has_a_row_and_metrics_for_each_corpus(tmp_path):
    documents = [Document("x/1", "s", "a", "x"), Document("x/2", "t", "b", "x")]
    documents.append(Document("y/1", "s", "cccc", "y"))
    write_documents(tmp_path / "clean/val", documents)
    ids = [[5, EOS], [6, EOS], [7, 7, 7, 7, EOS]]
    split = split_of(tmp_path / "tokens", ids, corpora={"x": 2, "y": 1})
    scores = scores_of([5, EOS, 6, EOS, 7, 7, 7, 7, EOS], losses=[1, 1, 3, 3, 2, 2, 2, 2, 2])
    assert source_sums(document_sums(scores, split, documents))["source"].tolist() == ["y", "x"]
    evaluator = Evaluator(Plain(), None, {"val": split}, tmp_path / "clean", None)
    metrics = corpus_metrics(evaluator, "val", scores)
    assert metrics["loss.x"] == pytest.approx(2)
    assert metrics["bits_per_byte.y"] == pytest.approx(10 / np.log(2) / 4)
    assert metrics["accuracy.x"] == 1
    alone = Evaluator(Plain(), None, {"val": split_of(tmp_path, ids)}, tmp_path / "clean", None)
    assert corpus_metrics(alone, "val", scores) == {}


class Plain:
    """The part of a model that the tables use."""

    config = SimpleNamespace(separator=None)


def test_documents_of_other_tokens_are_refused(tmp_path):
    split = split_of(tmp_path, [[5, EOS], [6, EOS]])
    with pytest.raises(AtlasError, match="has 1 documents, but data/tokens has 2"):
        document_sums(scores_of([5, EOS, 6, EOS]), split, [Document("1", "x", "a")])


def test_confusion_counts_pairs_without_document_ends(tokenizer):
    the, lamp = tokenizer.encode("the lamp")[:2]
    targets = [the, the, the, lamp, tokenizer.eos]
    predicted = [the, the, lamp, 399, tokenizer.eos]
    table = confusion_table(scores_of(targets, predicted), tokenizer, questions=False)
    assert table["count"].tolist() == [2, 1, 1]
    assert table["share"].tolist() == pytest.approx([2 / 3, 1 / 3, 1])
    assert table["predicted"].tolist()[2] == OTHER
    assert tokenizer.piece(tokenizer.eos) not in set(table["actual"])


class Pieces:
    """The part of a tokenizer that the confusion table uses."""

    eos = 1

    def piece(self, number: int) -> str:
        return {2: "other", 3: "▁6", 4: "6", 5: "▁7"}[number]


def test_pieces_that_look_alike_keep_distinct_labels():
    table = confusion_table(scores_of([2, 2, 3, 4, 5], [2, 9, 4, 4, 5]), Pieces(), questions=True)
    rows = {(row.actual, row.predicted): row.share for row in table.itertuples()}
    assert rows == {
        ("other", "other"): 0.5,
        ("other", "other tokens"): 0.5,
        ("·6", "6"): 1,
        ("6", "6"): 1,
        ("7", "7"): 1,
    }


def test_pieces_that_look_equal_are_followed_by_their_ids():
    pieces = SimpleNamespace(eos=1, piece={2: "·", 3: "▁", 4: "</", 5: "\u2039/"}.get)
    table = confusion_table(scores_of([2, 3, 4, 5]), pieces, questions=False)
    assert table["actual"].tolist() == ["· (2)", "· (3)", "\u2039/ (4)", "\u2039/ (5)"]


@given(st.text("</!?>-[]a scriptimgonerror=\"'&;\0\n", max_size=20))
def test_a_table_has_no_markup(text):
    """A tag, a comment or a declaration begins with < and one of these characters."""
    for label in (text, f"<{text}", f"</script>{text}"):
        shown = without_tags(label)
        assert not re.search("<[A-Za-z/!?]", shown)
        assert shown.replace("\u2039", "<") == label


def test_names_of_files_cannot_end_a_script(tmp_path):
    names = ["</script><img src=x onerror=alert(1)>", "<!--<script>", "a < b <3.txt", None]
    write_table(pd.DataFrame({"source": names, "loss": [1.0, 2, 3, 4]}), tmp_path, "sources")
    assert pd.read_csv(tmp_path / "sources.csv", keep_default_na=False)["source"].tolist() == [
        *("\u2039/script>\u2039img src=x onerror=alert(1)>", "\u2039!--\u2039script>"),
        *("a < b <3.txt", ""),
    ]


def test_the_tables_of_a_text(evaluator, tmp_path):
    scores = evaluator.score(evaluator.table_split)
    write_score_tables(evaluator, scores, tmp_path)
    documents = pd.read_csv(tmp_path / "documents.csv")
    assert len(documents) == 10
    assert documents["tokens"].sum() == len(evaluator.splits["test"])
    mean = (documents["loss"] * documents["tokens"]).sum() / documents["tokens"].sum()
    assert mean == pytest.approx(scores.loss, rel=1e-6)
    names = {path.stem for path in tmp_path.glob("*.csv")}
    assert names == {"documents", "sources", "calibration", "confusion"}
