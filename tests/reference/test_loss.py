import math

import numpy as np
import pytest

from atlas.reference.training import cross_entropy_backward, cross_entropy_forward


def test_a_uniform_guess_costs_the_log_of_the_vocabulary():
    loss, _ = cross_entropy_forward(np.zeros((2, 3, 8)), np.zeros((2, 3), int))
    assert loss == pytest.approx(math.log(8))


def test_an_ignored_target_counts_neither_in_the_loss_nor_in_the_gradient():
    logits = np.random.default_rng(0).normal(size=(1, 3, 4))
    loss, cache = cross_entropy_forward(logits, np.array([[-100, 2, -100]]))
    alone, cache_alone = cross_entropy_forward(logits[:, 1:2], np.array([[2]]))
    assert loss == alone
    gradient = cross_entropy_backward(1.0, cache)
    assert (gradient[0, [0, 2]] == 0).all()
    assert np.array_equal(gradient[:, 1:2], cross_entropy_backward(1.0, cache_alone))


def test_logits_of_any_size_have_a_finite_loss():
    loss, cache = cross_entropy_forward(np.array([[1e4, 0, -1e4]]), np.array([2]))
    assert loss == 2e4
    assert cross_entropy_backward(1.0, cache).tolist() == [[1, 0, -1]]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 4], "target 4: targets go from 0 to 3"),
        ([0, -1], "target -1"),
        ([-100, -100], "every target is ignored"),
    ],
)
def test_invalid_targets_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy_forward(np.zeros((2, 4)), np.array(targets))
