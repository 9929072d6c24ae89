import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.training.optimizers import learning_rate_factor
from tests.small import small_params

ROOT = math.sqrt(0.5)


def factors(schedule, steps, warmup, final, decay_share=0.5):
    train = small_params(
        **{
            "train.schedule": schedule,
            "train.steps": steps,
            "train.warmup_share": warmup / steps,
            "train.min_lr_ratio": final,
            "train.decay_share": decay_share,
        }
    ).train
    return [learning_rate_factor(train, step, steps) for step in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "steps", "warmup", "final", "expected"),
    [
        ("cosine", 6, 2, 0.0, [0.5, 1, (1 + ROOT) / 2, 0.5, (1 - ROOT) / 2, 0]),
        ("cosine", 4, 0, 0.5, [0.75 + ROOT / 4, 0.75, 0.75 - ROOT / 4, 0.5]),
        ("cosine", 3, 3, 0.1, [1 / 3, 2 / 3, 1]),
        ("cosine", 1, 1, 0.1, [1]),
        ("cosine", 1, 0, 0.1, [0.1]),
        ("linear", 6, 2, 0.0, [0.5, 1, 0.75, 0.5, 0.25, 0]),
        ("linear", 5, 0, 0.5, [0.9, 0.8, 0.7, 0.6, 0.5]),
        ("constant", 5, 3, 0.1, [1 / 3, 2 / 3, 1, 1, 1]),
        ("wsd", 8, 2, 0.2, [0.5, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]),
        ("wsd", 4, 0, 0.0, [1, 1, 0.5, 0]),
        ("wsd", 6, 4, 0.0, [0.25, 0.5, 0.75, 1, 0.5, 0]),
    ],
)
def test_the_factor_of_each_step_written_out(schedule, steps, warmup, final, expected):
    assert factors(schedule, steps, warmup, final) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("share", "steps", "warmup"),
    [(0.05, 1200, 60), (0.05, 30, 2), (0.05, 9, 0), (0.0, 100, 0), (1.0, 7, 7), (0.5, 1, 0)],
)
def test_warmup_follows_the_length_of_the_run(share, steps, warmup):
    train = small_params(**{"train.warmup_share": share, "train.schedule": "constant"}).train
    found = [learning_rate_factor(train, step, steps) for step in range(steps)]
    rising = [(step + 1) / warmup for step in range(warmup)]
    assert found == rising + [1.0] * (steps - warmup)


def test_wsd_without_decay_is_constant_and_with_nothing_else_linear():
    assert factors("wsd", 9, 3, 0.3, decay_share=0.0) == factors("constant", 9, 3, 0.3)
    assert factors("wsd", 9, 0, 0.3, decay_share=1.0) == factors("linear", 9, 0, 0.3)


def test_two_wsd_runs_are_the_same_until_the_shorter_one_falls():
    shorter, longer = factors("wsd", 20, 4, 0.0, 0.25), factors("wsd", 60, 4, 0.0, 0.25)
    assert shorter[:15] == longer[:15]
    assert shorter[15] < longer[15]


@given(
    st.sampled_from(["cosine", "linear", "constant", "wsd"]),
    st.integers(1, 60),
    st.integers(0, 60),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_it_climbs_to_one_and_falls_to_the_end(schedule, steps, warmup, final, decay_share):
    warmup = min(warmup, steps)
    found = factors(schedule, steps, warmup, final, decay_share)
    assert all(0 <= factor <= 1 + 1e-12 for factor in found)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    falls = schedule in ("cosine", "linear") or (
        schedule == "wsd" and round(decay_share * steps) > 0
    )
    if warmup < steps and falls:
        assert found[-1] == pytest.approx(final, abs=1e-12)
