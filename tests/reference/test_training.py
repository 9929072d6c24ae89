"""The loss, the optimizers, the schedule and the training loop."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from atlas.reference.decoder import generate, initialize
from atlas.reference.training import (
    SGD,
    Adam,
    AdamW,
    Batch,
    clip_gradients,
    cross_entropy_backward,
    cross_entropy_forward,
    loss_and_gradients,
    train,
    warmup_cosine,
)
from atlas.training.optimizers import learning_rate_factor
from tests.code_walk import ROOT
from tests.reference.gradients import small_options
from tests.small import small_params

TEXTS = np.array([[1, 2, 3, 4, 5, 6], [5, 2, 3, 1, 1, 9], [8, 2, 7, 7, 0, 10]])
SHAPES = {"matrix": (3, 4), "vector": (5,)}


def torch_adamw(tensors):
    groups = [
        {"params": [tensors["matrix"]], "weight_decay": 0.1},
        {"params": [tensors["vector"]], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.8, 0.95), eps=1e-6)


OPTIMIZERS = {
    "sgd": (SGD, lambda tensors: torch.optim.SGD(tensors.values(), lr=0.0)),
    "momentum": (
        lambda: SGD(momentum=0.9),
        lambda tensors: torch.optim.SGD(tensors.values(), lr=0.0, momentum=0.9),
    ),
    "adam": (
        lambda: Adam(beta1=0.8, beta2=0.95, eps=1e-6),
        lambda tensors: torch.optim.Adam(tensors.values(), lr=0.0, betas=(0.8, 0.95), eps=1e-6),
    ),
    "adamw": (lambda: AdamW(beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1), torch_adamw),
}


def test_the_loss_of_a_uniform_guess_is_the_log_of_the_vocabulary():
    loss, _ = cross_entropy_forward(np.zeros((2, 3, 8)), np.zeros((2, 3), int))
    assert loss == pytest.approx(math.log(8))


def test_an_ignored_target_has_no_loss_and_no_gradient():
    logits = np.random.default_rng(0).normal(size=(1, 3, 4))
    loss, cache = cross_entropy_forward(logits, np.array([[-100, 2, -100]]))
    alone, cache_alone = cross_entropy_forward(logits[:, 1:2], np.array([[2]]))
    assert loss == alone
    gradient = cross_entropy_backward(1.0, cache)
    assert (gradient[0, [0, 2]] == 0).all()
    assert np.array_equal(gradient[:, 1:2], cross_entropy_backward(1.0, cache_alone))


def test_large_logits_have_a_finite_loss():
    loss, cache = cross_entropy_forward(np.array([[1e4, 0, -1e4]]), np.array([2]))
    assert loss == 2e4
    assert cross_entropy_backward(1.0, cache).tolist() == [[1, 0, -1]]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 4], "target 4 is outside 0 to 3"),
        ([0, -1], "target -1"),
        ([-100, -100], "every target is ignored"),
    ],
)
def test_invalid_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy_forward(np.zeros((2, 4)), np.array(targets))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_equal_torch(name):
    make_optimizer, make_torch_optimizer = OPTIMIZERS[name]
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    tensors = {name: torch.tensor(array) for name, array in weights.items()}
    optimizer, torch_optimizer = make_optimizer(), make_torch_optimizer(tensors)
    for step in range(20):
        lr = 0.1 / (step + 1)
        gradients = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
        optimizer.update(weights, gradients, lr)
        for group in torch_optimizer.param_groups:
            group["lr"] = lr
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        torch_optimizer.step()
    for name, tensor in tensors.items():
        assert np.abs(weights[name] - tensor.numpy()).max() < 1e-12, name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_float32_stays_float32_in_weights_and_state(name):
    optimizer = OPTIMIZERS[name][0]()
    weights = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    for _ in range(2):
        optimizer.update(weights, {name: array.copy() for name, array in weights.items()}, 0.1)
    states = [state for state in vars(optimizer).values() if isinstance(state, dict)]
    assert states
    for arrays in (weights, *states):
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_matrices_decay_and_vectors_do_not():
    weights = {name: np.ones(shape) for name, shape in SHAPES.items()}
    zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    AdamW(weight_decay=0.5).update(weights, zeros, 0.1)
    assert np.allclose(weights["matrix"], 0.95)
    assert (weights["vector"] == 1).all()


def test_the_first_step_of_adam_is_the_learning_rate_against_the_sign():
    weights = {"x": np.zeros(3)}
    Adam().update(weights, {"x": np.array([3.0, -0.01, 200])}, 0.1)
    assert np.allclose(weights["x"], [-0.1, 0.1, -0.1], atol=1e-6)


def memorize(steps=120, dtype=np.float32, **changes):
    options = small_options(**({"d_model": 32, "d_ff": 64, "n_kv_head": 4} | changes))
    parameters = initialize(options, 0, dtype)
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
def test_three_texts_are_soon_memorized(changes):
    *_, losses = memorize(**changes)
    assert losses[0] > 1.5
    assert losses[-1] < 0.05


def test_training_in_float32_stays_in_float32():
    parameters, _, optimizer, losses = memorize(steps=2)
    for arrays in (parameters, optimizer.mean, optimizer.mean_square):
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}
    assert all(isinstance(loss, float) for loss in losses)


def test_the_same_training_gives_the_same_weights():
    (first, *_), (again, *_) = memorize(steps=5), memorize(steps=5)
    for name in first:
        assert np.array_equal(first[name], again[name]), name


def test_a_non_finite_loss_stops_before_the_update():
    options = small_options()
    parameters = initialize(options, 0)
    parameters["norm.weight"][0] = np.nan
    before = {name: array.copy() for name, array in parameters.items()}
    batch = Batch(TEXTS[:, :-1], TEXTS[:, 1:])
    with pytest.raises(FloatingPointError, match="step 0: loss nan"):
        list(train(parameters, options, lambda _: batch, AdamW(), lambda _: 0.01, 1))
    for name in parameters:
        assert np.array_equal(parameters[name], before[name], equal_nan=True), name


def test_only_gradients_above_the_norm_are_scaled():
    gradients = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])}
    assert clip_gradients(gradients, 10.0) == 5.0
    assert gradients["b"].tolist() == [[4.0]]
    assert clip_gradients(gradients, 1.0) == 5.0
    assert np.allclose(gradients["a"], [0.6, 0])
    assert np.allclose(gradients["b"], [[0.8]])


@given(st.lists(st.floats(-1e3, 1e3), min_size=1), st.floats(1e-3, 1e3))
def test_clipping_equals_torch(gradient, max_norm):
    tensor = torch.zeros(len(gradient), dtype=torch.float64)
    tensor.grad = torch.tensor(gradient, dtype=torch.float64)
    clipped = {"weight": np.array(gradient)}
    norm = clip_gradients(clipped, max_norm)
    assert torch.nn.utils.clip_grad_norm_([tensor], max_norm).item() == pytest.approx(norm)
    assert np.allclose(clipped["weight"], tensor.grad.numpy(), rtol=1e-12, atol=1e-12)


def test_a_step_uses_the_clipped_gradient():
    options = small_options()
    parameters = initialize(options, 0, np.float64)
    before = {name: array.copy() for name, array in parameters.items()}
    batch = Batch(TEXTS[:, :-1], TEXTS[:, 1:])
    list(train(parameters, options, lambda _: batch, SGD(), lambda _: 0.5, 1, max_grad_norm=0.01))
    moves = [np.sum((parameters[name] - before[name]) ** 2) for name in parameters]
    assert math.sqrt(sum(moves)) == pytest.approx(0.5 * 0.01)


def test_the_schedule_rises_linearly_and_falls_along_a_cosine():
    factors = [warmup_cosine(step, 6, 2, 0.0) for step in range(6)]
    root = math.sqrt(0.5)
    assert factors == pytest.approx([0.5, 1, (1 + root) / 2, 0.5, (1 - root) / 2, 0])
    assert [warmup_cosine(step, 3, 1, 0.2) for step in range(4)] == pytest.approx(
        [1, 0.6, 0.2, 0.2]
    )
    assert warmup_cosine(0, 1, 0, 0.1) == pytest.approx(0.1)


@given(st.integers(0, 60), st.integers(1, 50), st.integers(0, 50), st.floats(0, 1))
def test_the_schedule_equals_the_pipelines(step, steps, warmup_steps, min_ratio):
    assume(step < steps and warmup_steps <= steps)
    train = small_params(
        **{"train.warmup_share": warmup_steps / steps, "train.min_lr_ratio": min_ratio}
    ).train
    factor = warmup_cosine(step, steps, warmup_steps, min_ratio)
    assert factor == pytest.approx(learning_rate_factor(train, step, steps), abs=1e-12)


def test_padding_changes_neither_loss_nor_gradient():
    options = small_options(positions="learned")
    parameters = initialize(options, 0, np.float64)
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


def test_memorized_texts_are_generated_from_prompts_of_any_length():
    parameters, options, *_ = memorize()
    assert generate(parameters, options, TEXTS[:, :2], 4).tolist() == TEXTS[:, 2:].tolist()
    prompts = np.array([[0, 0, 0, 1, 2], [5, 2, 3, 1, 1]])
    mask = np.array([[False, False, False, True, True], [True] * 5])
    assert generate(parameters, options, prompts, 1, mask).tolist() == [[3], [9]]


@pytest.mark.very_slow
def test_numpy_learns_arithmetic():
    """Run in a new process: NumPy reads its number of threads on import."""
    code = "from bench.reference import learn; print(learn(seed=1))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(run.stdout.splitlines()[-1]) >= 0.95
