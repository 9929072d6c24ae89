import numpy as np
import pytest
import torch

from atlas.reference.training import SGD, Adam, AdamW

SHAPES = {"matrix": (3, 4), "vector": (5,)}


def torch_adamw(tensors):
    groups = [
        {"params": [tensors["matrix"]], "weight_decay": 0.1},
        {"params": [tensors["vector"]], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.8, 0.95), eps=1e-6)


PAIRS = {
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


@pytest.mark.parametrize("name", PAIRS)
def test_twenty_steps_equal_torch(name):
    ours, theirs = PAIRS[name]
    generator = np.random.default_rng(0)
    weights = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
    tensors = {name: torch.tensor(array) for name, array in weights.items()}
    optimizer, trusted = ours(), theirs(tensors)
    for step in range(20):
        lr = 0.1 / (step + 1)
        gradients = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
        optimizer.update(weights, gradients, lr)
        for group in trusted.param_groups:
            group["lr"] = lr
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        trusted.step()
    for name, tensor in tensors.items():
        assert np.abs(weights[name] - tensor.numpy()).max() < 1e-12, name


@pytest.mark.parametrize("name", PAIRS)
def test_float32_stays_float32_in_weights_and_state(name):
    optimizer = PAIRS[name][0]()
    weights = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    for _ in range(2):
        optimizer.update(weights, {name: array.copy() for name, array in weights.items()}, 0.1)
    states = [state for state in vars(optimizer).values() if isinstance(state, dict)]
    assert states
    for arrays in (weights, *states):
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


def test_matrices_decay_and_vectors_do_not():
    weights = {name: np.ones(shape) for name, shape in SHAPES.items()}
    nothing = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    AdamW(weight_decay=0.5).update(weights, nothing, 0.1)
    assert np.allclose(weights["matrix"], 0.95)
    assert (weights["vector"] == 1).all()


def test_the_first_step_of_adam_is_the_learning_rate_in_the_direction_of_the_sign():
    weights = {"x": np.zeros(3)}
    Adam().update(weights, {"x": np.array([3.0, -0.01, 200])}, 0.1)
    assert np.allclose(weights["x"], [-0.1, 0.1, -0.1], atol=1e-6)
