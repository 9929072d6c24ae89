import math

import numpy as np
import pytest
import torch
import transformers  # its classes are imported where they are used, because they are slow
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy.special import chdtrc

from atlas.inference import sampling as s
from atlas.inference.sampling import GREEDY, Sampling, next_token, process_logits
from atlas.model.logits import softmax

INF = math.inf
SHARES = [0.5, 0.2, 0.2, 0.1]
LOGITS = np.log(np.array(SHARES, np.float32))
PLAIN = Sampling(temperature=1, top_k=0, top_p=1)


def kept(logits):
    return [index for index, value in enumerate(logits.tolist()) if value > -INF]


@pytest.mark.parametrize(
    ("k", "expected"),
    [(0, [0, 1, 2, 3]), (1, [0]), (2, [0, 1, 2]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])],
)
def test_top_k(k, expected):
    assert kept(s.keep_top_k(LOGITS, k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.01, [0]),
        (0.49, [0]),
        (0.6, [0, 1]),
        (0.75, [0, 1, 2]),
        (0.95, [0, 1, 2, 3]),
        (1, [0, 1, 2, 3]),
    ],
)
def test_top_p(p, expected):
    assert kept(s.keep_top_p(LOGITS, p)) == expected


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])]
)
def test_most_likely(count, expected):
    assert s.most_likely(LOGITS, count).tolist() == expected
    assert s.most_likely(LOGITS[::-1], count).tolist() == [3, 1, 2, 0][: len(expected)]


def test_top_p_follows_the_order_of_tokens_not_of_probabilities():
    assert kept(s.keep_top_p(LOGITS[[3, 1, 0, 2]], 0.6)) == [1, 2]


@pytest.mark.parametrize(
    ("p", "expected"),
    [(0, [0, 1, 2, 3]), (0.1, [0, 1, 2, 3]), (0.3, [0, 1, 2]), (0.5, [0]), (1, [0])],
)
def test_min_p(p, expected):
    assert kept(s.keep_min_p(LOGITS, p)) == expected


def test_a_repetition_penalty_lowers_seen_tokens():
    logits = np.array([2.0, -1.0, 0.5, 3.0], np.float32)
    changed = s.penalize_repetition(logits, np.array([0, 1]), 2.0)
    assert changed.tolist() == [1.0, -2.0, 0.5, 3.0]
    assert logits.tolist() == [2.0, -1.0, 0.5, 3.0]


def test_presence_counts_once_and_frequency_each_time():
    logits = np.zeros(4, np.float32)
    changed = s.penalize_frequency(logits, np.array([1, 1, 3]), 0.5, 0.25)
    assert changed.tolist() == [0, -1.0, 0, -0.75]
    assert s.penalize_frequency(logits, np.array([], np.int64), 1, 1).tolist() == [0] * 4


def test_a_bias_is_added():
    assert s.add_bias(np.zeros(3, np.float32), {2: 5.0, 0: -1.0}).tolist() == [-1, 0, 5]


def test_penalties_apply_to_the_whole_text_or_to_generated_tokens():
    logits = np.array([1.0, 1.0, 1.0], np.float32)
    both = PLAIN.model_copy(update={"repetition_penalty": 2.0, "presence_penalty": 0.5})
    # 1 / 2, 1 / 2 - 0.5 and 1, less the largest
    assert process_logits(logits, both, [0], [1]).tolist() == [-0.5, -1.0, 0.0]


def draws(sampling, count=12_000):
    generator = np.random.default_rng(5)
    found = [next_token(LOGITS, sampling, generator) for _ in range(count)]
    return [found.count(token) for token in range(4)]


def p_value(counts, expected):
    """The p-value of Pearson's chi-square test."""
    return chdtrc(len(counts) - 1, np.sum((counts - expected) ** 2 / expected))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, SHARES),
        ({"temperature": 0.5}, [25 / 34, 4 / 34, 4 / 34, 1 / 34]),
        ({"temperature": 2}, [5**0.5, 2**0.5, 2**0.5, 1]),
        ({"top_k": 3}, [5 / 9, 2 / 9, 2 / 9, 0]),
        ({"top_p": 0.6}, [5 / 7, 2 / 7, 0, 0]),
        ({"min_p": 0.3}, [5 / 9, 2 / 9, 2 / 9, 0]),
        ({"logit_bias": {3: math.log(3)}}, [5 / 12, 2 / 12, 2 / 12, 3 / 12]),
        ({"top_k": 3, "top_p": 0.7, "temperature": 1}, [5 / 7, 2 / 7, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(options, expected):
    counts = draws(PLAIN.model_copy(update=options))
    expected = np.array(expected) / sum(expected) * sum(counts)
    assert all(count == 0 for count, hope in zip(counts, expected, strict=True) if hope == 0)
    likely = expected > 0
    assert p_value(np.array(counts)[likely], expected[likely]) > 0.001


def test_the_chi_square_test_finds_a_wrong_sampler():
    counts = draws(PLAIN.model_copy(update={"temperature": 0.93}))
    assert p_value(np.array(counts), np.array(SHARES) * sum(counts)) < 0.001


def test_temperature_0_takes_the_likeliest_after_penalties():
    assert next_token(LOGITS, GREEDY, np.random.default_rng(0)) == 0
    biased = GREEDY.model_copy(update={"logit_bias": {2: 50.0}})
    assert next_token(LOGITS, biased, np.random.default_rng(0)) == 2


@pytest.mark.parametrize("temperature", [1e-30, 1e-6, 100])
def test_extreme_temperatures_are_still_probabilities(temperature):
    sampling = PLAIN.model_copy(update={"temperature": temperature})
    logits = np.array([1e4, -1e4, 9.9e3], np.float32)
    assert next_token(logits, sampling, np.random.default_rng(0)) in (0, 2)


LOGIT_ARRAYS = arrays(
    np.float32, st.integers(2, 40), elements=st.floats(-20, 20, width=32), unique=True
)


@settings(deadline=None)
@given(LOGIT_ARRAYS, st.integers(1, 50), st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_the_filters_are_those_of_transformers(logits, k, p, min_p):
    theirs = torch.tensor(logits)[None]
    close = np.abs(np.subtract.outer(logits, logits))[~np.eye(len(logits), dtype=bool)].min() < 1e-4
    assert kept(s.keep_top_k(logits, k)) == kept(transformers.TopKLogitsWarper(k)(None, theirs)[0])
    ours = kept(s.keep_top_p(logits, p))
    ranked = np.sort(softmax(logits))[::-1].cumsum()
    if not close and np.abs(ranked - p).min() > 1e-5:
        assert ours == kept(transformers.TopPLogitsWarper(p)(None, theirs)[0])
    if np.abs(softmax(logits) - min_p * softmax(logits).max()).min() > 1e-6:
        assert kept(s.keep_min_p(logits, min_p)) == kept(
            transformers.MinPLogitsWarper(min_p)(None, theirs)[0]
        )


@settings(deadline=None)
@given(LOGIT_ARRAYS, st.floats(0.1, 10), st.floats(0.1, 10), st.data())
def test_penalty_and_temperature_are_those_of_transformers(logits, penalty, temperature, data):
    seen = data.draw(st.lists(st.integers(0, len(logits) - 1), min_size=1))
    theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([seen]), torch.tensor(logits)[None]
    )
    sampling = PLAIN.model_copy(update={"repetition_penalty": penalty, "temperature": temperature})
    ours = process_logits(logits, sampling, seen, [])
    theirs = transformers.TemperatureLogitsWarper(temperature)(None, theirs)
    assert softmax(ours) == pytest.approx(theirs[0].softmax(0).numpy(), abs=1e-5)


def test_log_softmax():
    logits = np.array([1.0, 2.0, 4.0], np.float32)
    assert s.log_softmax(logits) == pytest.approx(torch.tensor(logits).log_softmax(0).numpy())
    assert softmax(logits).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("presence_penalty", math.nan),
        ("temprature", 1),
    ],
)
def test_invalid_sampling_options_are_refused(name, value):
    with pytest.raises(ValidationError, match=name):
        Sampling(**{name: value})
