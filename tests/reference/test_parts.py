"""Every layer of the reference against central differences and torch's autograd."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from atlas.reference.layers import (
    embedding_backward,
    embedding_forward,
    part,
    softmax_forward,
    whole,
)
from tests.reference.gradients import central_difference, relative_error
from tests.reference.parts import PARTS


def draw(shapes, dtype=np.float64):
    generator = np.random.default_rng(7)
    return {name: generator.normal(0, 1, shape).astype(dtype) for name, shape in shapes.items()}


@pytest.fixture(params=PARTS)
def each(request):
    return PARTS[request.param]


def test_a_gradient_equals_central_differences(each):
    inputs = draw(each.shapes)
    out, backward = each.run(inputs)
    dout = np.random.default_rng(8).normal(size=out.shape)
    gradients = backward(dout)
    assert gradients.keys() == inputs.keys()
    for name, array in inputs.items():
        slopes = np.empty_like(array)
        for place in np.ndindex(array.shape):
            slopes[place] = central_difference(
                lambda: np.sum(each.run(inputs)[0] * dout), array, place
            )
        assert relative_error(gradients[name], slopes) < 1e-6, name


def test_output_and_gradient_equal_torch(each):
    inputs = draw(each.shapes)
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in inputs.items()}
    expected = each.equation(tensors)
    out, backward = each.run(inputs)
    assert relative_error(out, expected.detach().numpy()) < 1e-10
    dout = np.random.default_rng(8).normal(size=out.shape)
    expected.backward(torch.tensor(dout))
    for name, gradient in backward(dout).items():
        assert gradient.shape == inputs[name].shape
        assert relative_error(gradient, tensors[name].grad.numpy()) < 1e-10, name


def test_float32_stays_float32(each):
    inputs = draw(each.shapes, np.float32)
    out, backward = each.run(inputs)
    assert out.dtype == np.float32
    for name, gradient in backward(np.ones(out.shape, np.float32)[()]).items():
        assert gradient.dtype == np.float32, name


def test_a_backward_pass_does_not_change_its_inputs(each):
    inputs = draw(each.shapes)
    before = {name: array.copy() for name, array in inputs.items()}
    out, backward = each.run(inputs)
    dout = np.ones(out.shape)
    first = backward(dout)
    again = backward(dout)
    assert (dout == 1).all()
    for name in inputs:
        assert np.array_equal(inputs[name], before[name]), name
        assert np.array_equal(first[name], again[name]), name


def test_the_gradient_of_a_repeated_id_is_counted_each_time():
    _, cache = embedding_forward(np.array([[2, 2, 0], [2, 1, 0]]), {"weight": np.zeros((4, 1))})
    gradient = embedding_backward(np.array([[[1.0], [10], [2]], [[100], [5], [3]]]), cache)
    assert gradient["weight"].tolist() == [[5], [5], [111], [0]]


@given(arrays(np.float64, (3, 5), elements=st.floats(-1e6, 1e6)), st.floats(-1e3, 1e3))
def test_softmax_sums_to_one_and_ignores_a_common_shift(x, shift):
    shares, _ = softmax_forward(x)
    assert np.allclose(shares.sum(-1), 1, atol=1e-12)
    assert ((shares >= 0) & (shares <= 1)).all()
    assert np.allclose(softmax_forward(x + shift)[0], shares, atol=1e-6)


def test_softmax_of_minus_infinity_is_zero():
    shares, _ = softmax_forward(np.array([0.0, -np.inf, 0.0]))
    assert shares.tolist() == [0.5, 0, 0.5]


def test_part_strips_the_prefix_of_weight_names():
    parameters = {f"blocks.{i}.up.{n}": np.array(i) for i in (1, 10) for n in ("weight", "bias")}
    up = part(parameters, "blocks.1.up")
    assert up == {"weight": 1, "bias": 1}
    assert whole("blocks.1.up", up).items() <= parameters.items()
