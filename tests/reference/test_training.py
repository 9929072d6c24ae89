import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from atlas.reference.decoder import generate, initialise
from atlas.reference.training import (
    SGD,
    AdamW,
    Batch,
    clip,
    loss_and_gradients,
    train,
    warmup_cosine,
)
from atlas.training import schedule
from tests.reference.gradients import small_options
from tests.small import small_params

TEXTS = np.array([[1, 2, 3, 4, 5, 6], [5, 2, 3, 1, 1, 9], [8, 2, 7, 7, 0, 10]])


def learn_by_heart(steps=120, dtype=np.float32, **changes):
    options = small_options(**({"d_model": 32, "d_ff": 64, "n_kv_head": 4} | changes))
    parameters = initialise(options, 0, dtype)
    optimizer = AdamW(weight_decay=0.0)
    batch = Batch(TEXTS[:, :-1], np.where(np.arange(5) < 1, -100, TEXTS[:, 1:]))
    losses = list(train(parameters, options, lambda _: batch, optimizer, lambda _: 0.01, steps))
    return parameters, options, optimizer, losses


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"positions": "learned", "norm": "layernorm", "bias": True, "feed_forward": "gelu"},
        {"positions": "alibi", "norm_position": "post", "feed_forward": "relu2"},
    ],
)
def test_three_texts_are_memorized_quickly(changes):
    *_, losses = learn_by_heart(**changes)
    assert losses[0] > 1.5
    assert losses[-1] < 0.05


def test_training_in_float32_stays_in_float32():
    parameters, _, optimizer, losses = learn_by_heart(steps=2)
    for arrays in (parameters, optimizer.mean, optimizer.mean_square):
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert all(isinstance(loss, float) for loss in losses)


def test_the_same_training_gives_the_same_weights():
    (first, *_), (again, *_) = learn_by_heart(steps=5), learn_by_heart(steps=5)
    for name in first:
        assert np.array_equal(first[name], again[name]), name


def test_a_non_finite_loss_updates_nothing():
    options = small_options()
    parameters = initialise(options, 0)
    parameters["norm.weight"][0] = np.nan
    before = {name: array.copy() for name, array in parameters.items()}
    batch = Batch(TEXTS[:, :-1], TEXTS[:, 1:])
    with pytest.raises(FloatingPointError, match="step 0: the loss is nan"):
        list(train(parameters, options, lambda _: batch, AdamW(), lambda _: 0.01, 1))
    for name in parameters:
        assert np.array_equal(parameters[name], before[name], equal_nan=True), name


def test_gradients_above_the_norm_are_scaled_together_and_others_unchanged():
    gradients = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    assert clip(gradients, 10.0) == 5.0
    assert gradients["b"].tolist() == [[4.0]]
    assert clip(gradients, 1.0) == 5.0
    assert np.allclose(gradients["a"], [0.6, 0])
    assert np.allclose(gradients["b"], [[0.8]])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1), st.floats(1e-3, 1e3))
def test_gradients_are_clipped_as_in_torch(gradient, most):
    tensor = torch.zeros(len(gradient), dtype=torch.float64)
    tensor.grad = torch.tensor(gradient, dtype=torch.float64)
    clipped = {"weight": np.array(gradient)}
    norm = clip(clipped, most)
    assert torch.nn.utils.clip_grad_norm_([tensor], most).item() == pytest.approx(norm)
    assert np.allclose(clipped["weight"], tensor.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_a_step_is_no_larger_than_the_clipped_gradient():
    options = small_options()
    parameters = initialise(options, 0, np.float64)
    before = {name: array.copy() for name, array in parameters.items()}
    batch = Batch(TEXTS[:, :-1], TEXTS[:, 1:])
    list(train(parameters, options, lambda _: batch, SGD(), lambda _: 0.5, 1, max_grad_norm=0.01))
    moves = [np.sum((parameters[name] - before[name]) ** 2) for name in parameters]
    assert math.sqrt(sum(moves)) == pytest.approx(0.5 * 0.01)


def test_the_schedule_warms_up_and_decays_along_a_cosine():
    factors = [warmup_cosine(step, 6, 2, 0.0) for step in range(6)]
    root = math.sqrt(0.5)
    assert factors == pytest.approx([0.5, 1, (1 + root) / 2, 0.5, (1 - root) / 2, 0])
    assert [warmup_cosine(step, 3, 1, 0.2) for step in range(4)] == pytest.approx(
        [1, 0.6, 0.2, 0.2]
    )
    assert warmup_cosine(0, 1, 0, 0.1) == pytest.approx(0.1)


@given(st.integers(0, 60), st.integers(1, 50), st.integers(0, 50), st.floats(0, 1))
def test_the_schedule_equals_that_of_the_pipeline(step, steps, warmup_steps, final):
    assume(step < steps)
    train = small_params(
        **{"train.warmup_steps": warmup_steps, "train.min_lr_ratio": final, "train.steps": 60}
    ).train
    found = warmup_cosine(step, steps, warmup_steps, final)
    assert found == pytest.approx(schedule.learning_rate_factor(train, step, steps), abs=1e-12)


def test_padding_changes_neither_loss_nor_gradient():
    options = small_options(positions="learned")
    parameters = initialise(options, 0, np.float64)
    ids, targets = TEXTS[:, :-1], TEXTS[:, 1:]
    left = ((0, 0), (2, 0))
    padded = Batch(
        np.pad(ids, left),
        np.pad(targets, left, constant_values=-100),
        np.pad(np.ones(ids.shape, bool), left),
    )
    loss, gradients = loss_and_gradients(parameters, options, Batch(ids, targets))
    padded_loss, padded_gradients = loss_and_gradients(parameters, options, padded)
    assert loss == pytest.approx(padded_loss, abs=1e-12)
    for name in gradients:
        assert np.allclose(gradients[name], padded_gradients[name], rtol=0, atol=1e-12), name


def test_memorized_text_is_generated_from_prompts_of_any_length():
    parameters, options, *_ = learn_by_heart()
    assert generate(parameters, options, TEXTS[:, :2], 4).tolist() == TEXTS[:, 2:].tolist()
    prompts = np.array([[0, 0, 0, 1, 2], [5, 2, 3, 1, 1]])
    mask = np.array([[False, False, False, True, True], [True] * 5])
    assert generate(parameters, options, prompts, 1, mask).tolist() == [[3], [9]]


def test_a_padded_prompt_continues_as_it_would_alone():
    options = small_options(context_length=16, tied_head=False)
    parameters = initialise(options, 0, np.float64)
    for array in parameters.values():
        array *= 3  # so that the next token depends on all before
    prompts = np.array([[0, 0, 0, 1, 2], [5, 2, 3, 1, 1]])
    mask = np.array([[False, False, False, True, True], [True] * 5])
    together = generate(parameters, options, prompts, 11, mask)
    assert together[:1].tolist() == generate(parameters, options, prompts[:1, 3:], 11).tolist()
    assert together[1:].tolist() == generate(parameters, options, prompts[1:], 11).tolist()
    assert len(set(together.flat)) > 4


def test_generation_beyond_the_context_is_refused():
    options = small_options()
    with pytest.raises(ValueError, match="9 tokens, the context holds 8"):
        generate(initialise(options, 0), options, TEXTS, 4)
