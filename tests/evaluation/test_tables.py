"""Documents, sources, calibration and confusion, on scores that were made by hand."""

import numpy as np
import pytest

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.evaluation.questions import OTHER, confusion_table
from atlas.evaluation.scores import (
    Scores,
    by_document,
    by_source,
    calibration_error,
    calibration_table,
    document_of,
    with_measures,
)
from atlas.tokens.shards import TokenSplit
from tests.small import EOS, write_tokens


def scores_of(targets, predicted=None, losses=None, confidences=None):
    count = len(targets)
    return Scores(
        np.zeros(count, np.int32),
        np.array(targets, np.int32),
        np.array(targets if predicted is None else predicted, np.int32),
        np.array(np.ones(count) if losses is None else losses, np.float32),
        np.array(np.ones(count) if confidences is None else confidences, np.float32),
    )


def split_of(folder, documents, **how):
    return TokenSplit(write_tokens(folder, {"val": [documents]}, **how), "val")


def test_each_document_has_its_tokens(tmp_path):
    split = split_of(tmp_path, [[5, 6, EOS], [7, EOS]])
    scores = scores_of([5, 6, EOS, 7, EOS], [5, 9, EOS, 9, EOS], np.log([2, 2, 2, 4, 4]))
    documents = [Document("a", "x", "äb"), Document("b", "y", "c")]
    table = with_measures(by_document(scores, split, documents), questions=False)
    assert table["tokens"].tolist() == [3, 2]
    assert table["bytes"].tolist() == [3, 1]
    assert table["loss"].tolist() == pytest.approx([np.log(2), np.log(4)])
    assert table["bits_per_byte"].tolist() == pytest.approx([1, 4])
    assert table["accuracy"].tolist() == pytest.approx([2 / 3, 1 / 2])


def test_a_question_is_right_or_wrong_as_a_whole(tmp_path):
    documents = [[5, 9, 6, EOS], [7, 7, 9, 8, 8, EOS], [9, 9, 9, EOS]]
    split = split_of(tmp_path, documents, windows="padded", separator=9)
    assert document_of(split).tolist() == [0, 0, 1, 1, 1, 2, 2, 2]
    scores = scores_of([6, EOS, 8, 8, EOS, 9, 9, EOS], [6, EOS, 8, 3, EOS, 9, 9, EOS])
    some = [Document(str(n), "s", "5 = 6") for n in range(3)]
    table = with_measures(by_document(scores, split, some), questions=True)
    assert table["accuracy"].tolist() == [1, 0, 1]
    assert table["bits_per_byte"].isna().all()
    whole = with_measures(by_source(by_document(scores, split, some)), questions=True)
    assert whole["accuracy"].tolist() == pytest.approx([2 / 3])
    assert whole["documents"].tolist() == [3]


def test_sources_add_up_and_the_largest_stands_first(tmp_path):
    split = split_of(tmp_path, [[5, EOS], [6, EOS], [7, 7, 7, 7, EOS]])
    documents = [Document("1", "x", "a"), Document("2", "x", "b"), Document("3", "y", "cccc")]
    scores = scores_of([5, EOS, 6, EOS, 7, 7, 7, 7, EOS], losses=[1, 1, 3, 3, 2, 2, 2, 2, 2])
    table = with_measures(by_source(by_document(scores, split, documents)), questions=False)
    assert table["source"].tolist() == ["y", "x"]
    assert table["loss"].tolist() == pytest.approx([2, 2])
    assert table["documents"].tolist() == [1, 2]


def test_documents_of_other_tokens_are_refused(tmp_path):
    split = split_of(tmp_path, [[5, EOS], [6, EOS]])
    with pytest.raises(AtlasError, match="1 documents, and data/tokens has 2"):
        by_document(scores_of([5, EOS, 6, EOS]), split, [Document("1", "x", "a")])


def test_a_model_that_is_as_often_right_as_it_is_sure_is_calibrated():
    sure = [0.75] * 4 + [0.25] * 4
    right = [1, 1, 1, 0, 1, 0, 0, 0]
    scores = scores_of([1] * 8, right, confidences=sure)
    table = calibration_table(scores)
    assert table.to_numpy().tolist() == [[0.25, 0.25, 4], [0.75, 0.75, 4]]
    assert calibration_error(table) == 0


def test_overconfidence_is_measured():
    scores = scores_of([1] * 4, [1, 0, 0, 0], confidences=[1, 1, 1, 0.5])
    assert calibration_error(calibration_table(scores)) == pytest.approx((2 + 0.5) / 4)


def test_confusion_counts_pairs_and_leaves_ends_out(tokenizer):
    the, lamp = tokenizer.encode("the lamp")[:2]
    targets = [the, the, the, lamp, tokenizer.eos]
    predicted = [the, the, lamp, 399, tokenizer.eos]
    table = confusion_table(scores_of(targets, predicted), tokenizer, questions=False)
    assert table["count"].tolist() == [2, 1, 1]
    assert table["share"].tolist() == pytest.approx([2 / 3, 1 / 3, 1])
    assert table["predicted"].tolist()[2] == OTHER
    assert tokenizer.piece(tokenizer.eos) not in set(table["actual"])


class Pieces:
    """A tokenizer as far as confusion asks it."""

    eos = 1

    def piece(self, number: int) -> str:
        return {2: "other", 3: "▁6", 4: "6", 5: "▁7"}[number]


def test_pieces_that_look_alike_are_told_apart():
    table = confusion_table(scores_of([2, 2, 3, 4, 5], [2, 9, 4, 4, 5]), Pieces(), questions=True)
    rows = {(row.actual, row.predicted): row.share for row in table.itertuples()}
    assert rows == {
        ("other", "other"): 0.5,
        ("other", "other tokens"): 0.5,
        ("·6", "6"): 1,
        ("6", "6"): 1,
        ("7", "7"): 1,
    }
