"""Every layer of the reference against central differences and autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atlas.reference.layers import (
    embedding_backward,
    embedding_forward,
    join,
    softmax_forward,
    sub_parameters,
)
from tests.reference.gradients import central_difference, relative_error
from tests.reference.layer_cases import LAYERS


def draw(shapes, dtype=np.float64):
    generator = np.random.default_rng(7)
    return {name: generator.normal(0, 1, shape).astype(dtype) for name, shape in shapes.items()}


@pytest.fixture(params=LAYERS)
def layer(request):
    return LAYERS[request.param]


def test_gradients_equal_central_differences(layer):
    inputs = draw(layer.shapes)
    out, backward = layer.run(inputs)
    dout = np.random.default_rng(8).normal(size=out.shape)
    gradients = backward(dout)
    assert gradients.keys() == inputs.keys()
    for name, array in inputs.items():
        slopes = np.empty_like(array)
        for index in np.ndindex(array.shape):
            slopes[index] = central_difference(
                lambda: np.sum(layer.run(inputs)[0] * dout), array, index
            )
        assert relative_error(gradients[name], slopes) < 1e-6, name


def test_output_and_gradients_equal_torch(layer):
    inputs = draw(layer.shapes)
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in inputs.items()}
    expected = layer.equation(tensors)
    out, backward = layer.run(inputs)
    assert relative_error(out, expected.detach().numpy()) < 1e-10
    dout = np.random.default_rng(8).normal(size=out.shape)
    expected.backward(torch.tensor(dout))
    for name, gradient in backward(dout).items():
        assert gradient.shape == inputs[name].shape
        assert relative_error(gradient, tensors[name].grad.numpy()) < 1e-10, name


def test_float32_stays_float32(layer):
    inputs = draw(layer.shapes, np.float32)
    out, backward = layer.run(inputs)
    assert out.dtype == np.float32
    for name, gradient in backward(np.ones(out.shape, np.float32)[()]).items():
        assert gradient.dtype == np.float32, name


def test_a_backward_pass_does_not_change_its_inputs(layer):
    inputs = draw(layer.shapes)
    before = {name: array.copy() for name, array in inputs.items()}
    out, backward = layer.run(inputs)
    dout = np.ones(out.shape)
    first = backward(dout)
    again = backward(dout)
    assert (dout == 1).all()
    for name in inputs:
        assert np.array_equal(inputs[name], before[name]), name
        assert np.array_equal(first[name], again[name]), name


def test_gradients_of_a_repeated_id_add_up():
    _, cache = embedding_forward(np.array([[2, 2, 0], [2, 1, 0]]), {"weight": np.zeros((4, 1))})
    gradient = embedding_backward(np.array([[[1.0], [10], [2]], [[100], [5], [3]]]), cache)
    assert gradient["weight"].tolist() == [[5], [5], [111], [0]]


@given(arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6)), st.floats(-1e3, 1e3))
def test_softmax_gives_probabilities_and_ignores_a_common_shift(x, shift):
    probabilities, _ = softmax_forward(x)
    assert np.allclose(probabilities.sum(-1), 1, atol=1e-12)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert np.allclose(softmax_forward(x + shift)[0], probabilities, atol=1e-6)


def test_softmax_gives_0_to_minus_infinity():
    probabilities, _ = softmax_forward(np.array([0.0, -np.inf, 0.0]))
    assert probabilities.tolist() == [0.5, 0, 0.5]


def test_sub_parameters_removes_the_prefix_and_join_adds_it():
    parameters = {f"blocks.{i}.up.{n}": np.array(i) for i in (1, 10) for n in ("weight", "bias")}
    up = sub_parameters(parameters, "blocks.1.up")
    assert up == {"weight": 1, "bias": 1}
    assert join({"blocks.1.up": up}).items() <= parameters.items()
