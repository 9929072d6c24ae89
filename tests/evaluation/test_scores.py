"""A split token by token, in windows side by side and in sliding ones."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.evaluation.scores import measures, score
from atlas.evaluation.sliding import sliding_windows
from atlas.model.decoder import Decoder
from atlas.model.initialize import initialise
from atlas.tokens.shards import TokenSplit
from atlas.tokens.windows import NO_TARGET, EvaluationWindows
from tests.small import EOS, small_config, write_tokens

LENGTH = 16


@pytest.fixture(scope="module")
def model():
    model = Decoder(small_config(context_length=LENGTH)).eval()
    initialise(model, 0)
    return model


def random_documents(*lengths):
    generator = np.random.default_rng(1)
    return [[*generator.integers(3, 400, length - 1).tolist(), EOS] for length in lengths]


def split_of(folder, documents, **how):
    return TokenSplit(write_tokens(folder, {"val": [documents]}, **how), "val")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_windows_side_by_side_by_hand(tmp_path, model, batch_size):
    split = split_of(tmp_path, random_documents(21, 20))
    found = score(model, EvaluationWindows(split, LENGTH, batch_size).all())
    ids = [EOS, *split.read(0, 41).tolist()]
    losses, likeliest, sure = [], [], []
    for start in (0, 16, 32):
        window = torch.tensor(ids[start : start + LENGTH + 1])
        logits = model(window[None, :-1])[0].detach()
        losses += F.cross_entropy(logits, window[1:], reduction="none").tolist()
        likeliest += logits.argmax(-1).tolist()
        sure += logits.softmax(-1).amax(-1).tolist()
    assert found.losses == pytest.approx(np.array(losses), rel=1e-4)
    assert found.predicted.tolist() == likeliest
    assert found.confidences == pytest.approx(np.array(sure), rel=1e-4)
    assert found.before.tolist() == ids[:-1]
    assert found.targets.tolist() == ids[1:]
    by_name = measures(found.total, len(found), split)
    assert by_name["loss"] == pytest.approx(sum(losses) / 41, rel=1e-5)
    assert by_name["perplexity"] == pytest.approx(math.exp(sum(losses) / 41), rel=1e-4)
    assert by_name["bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / 41, rel=1e-5)


def test_of_questions_the_answers_alone_are_scored(tmp_path, model):
    documents = [[5, 9, 6, EOS], [7, 7, 9, 8, EOS]]
    split = split_of(tmp_path, documents, windows="padded", separator=9)
    found = score(model, EvaluationWindows(split, LENGTH, 2).all())
    assert found.targets.tolist() == [6, EOS, 8, EOS]
    assert found.before.tolist() == [9, 6, 9, 8]
    assert "bits_per_byte" not in measures(found.total, 4, split)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    stride=st.integers(1, LENGTH),
    windows=st.sampled_from(["packed", "padded"]),
    batch_size=st.integers(1, 5),
)
def test_sliding_windows_count_each_token_once_with_all_that_fits_before_it(
    tmp_path_factory, lengths, stride, windows, batch_size
):
    documents = random_documents(*lengths)
    split = split_of(tmp_path_factory.mktemp("tokens"), documents, windows=windows)
    texts = documents if windows == "padded" else [[token for each in documents for token in each]]
    expected = [(token, text, place) for text in texts for place, token in enumerate(text)]
    seen = 0
    for batch in sliding_windows(split, LENGTH, stride, batch_size):
        assert len(batch.inputs) <= batch_size
        for inputs, targets, mask in zip(*batch, strict=True):
            for column in np.flatnonzero(targets != NO_TARGET):
                token, text, place = expected[seen]
                seen += 1
                assert targets[column] == token
                assert mask[: column + 1].all()
                context = [EOS, *text][max(0, place - column) : place + 1]
                assert inputs[: column + 1].tolist() == context
                assert column + 1 >= min(place + 1, LENGTH - stride + 1)
    assert seen == len(expected)


def test_with_a_stride_of_a_token_each_has_a_full_context(tmp_path, model):
    split = split_of(tmp_path, random_documents(40))
    found = score(model, sliding_windows(split, LENGTH, 1, 7))
    ids = [EOS, *split.read(0, 40).tolist()]
    for place in range(40):
        before = torch.tensor([ids[max(0, place + 1 - LENGTH) : place + 1]])
        loss = F.cross_entropy(model(before)[0, -1:], torch.tensor([ids[place + 1]]))
        assert found.losses[place] == pytest.approx(loss.item(), rel=1e-4)


def test_a_split_shorter_than_a_window_is_scored(tmp_path, model):
    split = split_of(tmp_path, [[5, 6, EOS]])
    plain = score(model, EvaluationWindows(split, LENGTH, 4).all())
    sliding = score(model, sliding_windows(split, LENGTH, 8, 4))
    assert plain.losses.tolist() == pytest.approx(sliding.losses.tolist())
    assert len(plain) == 3
