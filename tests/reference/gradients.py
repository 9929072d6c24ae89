"""Central differences, and options of a decoder small enough for them."""

import numpy as np

from atlas.reference.options import Options

STEP = 1e-5  # small enough for the truncation error, large enough for the rounding error


def central_difference(f, array, index) -> float:
    """Derivative of f() with respect to one element of an array."""
    original = array[index]
    array[index] = original + STEP
    above = f()
    array[index] = original - STEP
    below = f()
    array[index] = original
    return (above - below) / (2 * STEP)


def relative_error(actual, expected, min_scale=1.0) -> float:
    """Largest error divided by the largest expected value, or by ``min_scale`` if that is larger.

    Some gradients are 0: the bias of the keys adds the same to all scores of a query.
    """
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), min_scale)


def small_options(**changes) -> Options:
    sizes = {"vocab_size": 11, "context_length": 8, "d_model": 8, "n_layer": 2, "n_head": 4}
    return Options(**(sizes | {"n_kv_head": 2, "d_ff": 6} | changes))
