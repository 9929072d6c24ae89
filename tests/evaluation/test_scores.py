"""Scores of each token of a split, in adjacent and in sliding windows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.evaluation.scores import (
    Scores,
    calibration_error,
    calibration_table,
    loss_metrics,
    score_batches,
    sliding_windows,
)
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import NO_TARGET, EvaluationWindows
from tests.small import EOS, small_config, write_tokens

LENGTH = 16


@pytest.fixture(scope="module")
def model():
    model = Decoder(small_config(context_length=LENGTH)).eval()
    initialize(model, 0)
    return model


def random_documents(*lengths):
    generator = np.random.default_rng(1)
    return [[*generator.integers(3, 400, length - 1).tolist(), EOS] for length in lengths]


def split_of(folder, documents, **options):
    return TokenSplit(write_tokens(folder, {"val": [documents]}, **options), "val")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_adjacent_windows_by_hand(tmp_path, model, batch_size):
    split = split_of(tmp_path, random_documents(21, 20))
    found = score_batches(model, EvaluationWindows(split, LENGTH, batch_size).all())
    ids = [EOS, *split.read(0, 41).tolist()]
    losses, predicted, confidences = [], [], []
    for start in (0, 16, 32):
        window = torch.tensor(ids[start : start + LENGTH + 1])
        logits = model(window[None, :-1])[0].detach()
        losses += F.cross_entropy(logits, window[1:], reduction="none").tolist()
        predicted += logits.argmax(-1).tolist()
        confidences += logits.softmax(-1).amax(-1).tolist()
    assert found.losses == pytest.approx(np.array(losses), rel=1e-4)
    assert found.predicted.tolist() == predicted
    assert found.confidences == pytest.approx(np.array(confidences), rel=1e-4)
    assert found.previous.tolist() == ids[:-1]
    assert found.targets.tolist() == ids[1:]
    metrics = loss_metrics(found.total_loss, len(found), split)
    assert metrics["loss"] == pytest.approx(sum(losses) / 41, rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(sum(losses) / 41), rel=1e-4)
    assert metrics["bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / 41, rel=1e-5)


@pytest.mark.parametrize("limit", [1, 400 * LENGTH * 2, 400 * 5])
def test_scores_do_not_depend_on_how_much_is_computed_at_once(tmp_path, model, limit, monkeypatch):
    split = split_of(tmp_path, random_documents(21, 20))
    windows = EvaluationWindows(split, LENGTH, 3)
    whole = score_batches(model, windows.all())
    monkeypatch.setattr("atlas.evaluation.scores.MAX_LOGITS", limit)
    parts = score_batches(model, windows.all())
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    assert parts.targets.tolist() == whole.targets.tolist()
    assert parts.predicted.tolist() == whole.predicted.tolist()


def test_only_the_answers_of_questions_are_scored(tmp_path, model):
    documents = [[5, 9, 6, EOS], [7, 7, 9, 8, EOS]]
    split = split_of(tmp_path, documents, windows="padded", separator=9)
    found = score_batches(model, EvaluationWindows(split, LENGTH, 2).all())
    assert found.targets.tolist() == [6, EOS, 8, EOS]
    assert found.previous.tolist() == [9, 6, 9, 8]
    assert "bits_per_byte" not in loss_metrics(found.total_loss, 4, split)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    stride=st.integers(1, LENGTH),
    windows=st.sampled_from(["packed", "padded"]),
    batch_size=st.integers(1, 5),
)
def test_sliding_windows_score_each_token_once_with_the_context_that_fits(
    tmp_path_factory, lengths, stride, windows, batch_size
):
    documents = random_documents(*lengths)
    split = split_of(tmp_path_factory.mktemp("tokens"), documents, windows=windows)
    texts = documents if windows == "padded" else [[token for each in documents for token in each]]
    expected = [(token, text, position) for text in texts for position, token in enumerate(text)]
    seen = 0
    for batch in sliding_windows(split, LENGTH, stride, batch_size):
        assert len(batch.inputs) <= batch_size
        for inputs, targets, mask in zip(*batch[:3], strict=True):
            for column in np.flatnonzero(targets != NO_TARGET):
                token, text, position = expected[seen]
                seen += 1
                assert targets[column] == token
                assert mask[: column + 1].all()
                context = [EOS, *text][max(0, position - column) : position + 1]
                assert inputs[: column + 1].tolist() == context
                assert column + 1 >= min(position + 1, LENGTH - stride + 1)
    assert seen == len(expected)


def test_a_bos_that_is_not_eos_begins_sliding_windows(tmp_path):
    split = TokenSplit(write_tokens(tmp_path, {"val": [[list(range(3, 15))]]}), "val")
    split.index = replace(split.index, bos=50)
    (batch,) = sliding_windows(split, 6, 3, 9)
    assert batch.inputs[:, 0].tolist() == [50] * 3
    assert batch.inputs[1, 1:].tolist() == [6, 7, 8, 9, 10]


def test_with_a_stride_of_one_each_token_has_a_full_context(tmp_path, model):
    split = split_of(tmp_path, random_documents(40))
    found = score_batches(model, sliding_windows(split, LENGTH, 1, 7))
    ids = [EOS, *split.read(0, 40).tolist()]
    for position in range(40):
        context = torch.tensor([ids[max(0, position + 1 - LENGTH) : position + 1]])
        loss = F.cross_entropy(model(context)[0, -1:], torch.tensor([ids[position + 1]]))
        assert found.losses[position] == pytest.approx(loss.item(), rel=1e-4)


def test_a_split_shorter_than_a_window_is_scored(tmp_path, model):
    split = split_of(tmp_path, [[5, 6, EOS]])
    plain = score_batches(model, EvaluationWindows(split, LENGTH, 4).all())
    sliding = score_batches(model, sliding_windows(split, LENGTH, 8, 4))
    assert plain.losses.tolist() == pytest.approx(sliding.losses.tolist())
    assert len(plain) == 3


def test_a_model_that_is_right_as_often_as_it_is_confident_is_calibrated():
    confidences = np.array([0.75] * 4 + [0.25] * 4, np.float32)
    table = calibration_table(predictions([1, 1, 1, 0, 1, 0, 0, 0], confidences))
    assert table.to_numpy().tolist() == [[0.25, 0.25, 4], [0.75, 0.75, 4]]
    assert calibration_error(table) == 0


def test_overconfidence_is_measured():
    table = calibration_table(predictions([1, 0, 0, 0], np.array([1, 1, 1, 0.5], np.float32)))
    assert calibration_error(table) == pytest.approx((2 + 0.5) / 4)


def predictions(predicted, confidences):
    """Scores of predictions of tokens that are all 1."""
    targets = np.ones(len(predicted), np.int32)
    losses = np.ones(len(predicted), np.float32)
    return Scores(targets, targets, np.array(predicted, np.int32), losses, confidences)
