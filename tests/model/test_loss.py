"""The loss of a large vocabulary, computed in chunks: equal to the plain one."""

import pytest
import torch
import torch.nn.functional as F

from atlas.model import loss
from atlas.model.loss import cross_entropy_sum, head_loss
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from tests.small import small_config

V, C = 30, 16


@pytest.fixture(autouse=True)
def few_logits(monkeypatch):
    """Use chunks of 7 rows for anything but the smallest batch."""
    monkeypatch.setattr(loss, "MANY_LOGITS", 2 * V)
    monkeypatch.setattr(loss, "CHUNK", 7 * V + 3)


def inputs(rows=13, dtype=torch.float64):
    """Hidden states (2, T, C), a head (V, C) and targets (2, T), the first ones ignored."""
    torch.manual_seed(1)
    hidden = torch.randn(2, rows, C, dtype=dtype, requires_grad=True)
    head = torch.randn(V, C, dtype=dtype, requires_grad=True)
    targets = torch.randint(0, V, (2, rows))
    targets[0, : rows // 4] = -100
    return hidden, head, targets


def plain(hidden, head, targets):
    return cross_entropy_sum(F.linear(hidden, head), targets)


def with_gradients(function, hidden, head, targets):
    total = function(hidden, head, targets)
    return [total, *torch.autograd.grad(total / 3, (hidden, head))]


@pytest.mark.parametrize("rows", [1, 3, 7, 8, 13, 14])  # around the ends of chunks
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_value_and_gradients_are_those_of_the_plain_loss(rows, dtype, tolerance):
    case = inputs(rows, dtype)
    found, expected = (with_gradients(each, *case) for each in (head_loss, plain))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_without_any_target_all_is_zero():
    hidden, head, targets = inputs()
    for found in with_gradients(head_loss, hidden, head, torch.full_like(targets, -100)):
        assert not found.any()


def test_a_large_loss_stays_finite():
    hidden, head, targets = inputs(dtype=torch.float32)
    case = (hidden.detach() * 1000).requires_grad_(), head, targets
    found, expected = (with_gradients(each, *case) for each in (head_loss, plain))
    assert found[0] > 1e4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


def test_a_frozen_head_gets_no_gradient():
    hidden, head, targets = inputs()
    expected = with_gradients(plain, hidden, head, targets)[1]
    total = head_loss(hidden, head.detach(), targets)
    torch.testing.assert_close(torch.autograd.grad(total / 3, hidden)[0], expected)


def test_few_logits_take_the_plain_path():
    """So models with a small vocabulary keep their bytes."""
    hidden, head, targets = inputs(1)
    found, expected = (with_gradients(each, hidden, head, targets) for each in (head_loss, plain))
    assert found[0].grad_fn.name() == expected[0].grad_fn.name()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    case = inputs(dtype=torch.float32)
    exact = with_gradients(plain, *case)
    with torch.autocast("cpu", dtype):
        found = with_gradients(head_loss, *case)
    assert [each.dtype for each in found] == [torch.float32] * 3
    for ours, expected in zip(found, exact, strict=True):
        assert (ours - expected).norm() < 0.01 * expected.norm()


def test_equal_inputs_give_equal_bytes():
    case = inputs(dtype=torch.float32)
    first, second = (with_gradients(head_loss, *case) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_the_operation_obeys_the_rules_of_pytorch():
    """Shapes without values for torch.compile, no changed inputs, registered gradients."""
    hidden, head, targets = inputs(dtype=torch.float32)
    case = (hidden.flatten(0, 1).detach().requires_grad_(), head, targets.flatten(), 7, True)
    torch.library.opcheck(loss._chunked_loss, case, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("tied_head", [True, False])
def test_a_whole_decoder(tied_head):
    config = small_config(tied_head=tied_head, dropout=0.0)
    model = Decoder(config).double()
    initialize(model, 1)
    ids, targets = torch.randint(0, config.vocab_size, (2, 3, 9))
    gradients = []
    for total in (model(ids, targets=targets), cross_entropy_sum(model(ids), targets)):
        gradients.append([total, *torch.autograd.grad(total, list(model.parameters()))])
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
