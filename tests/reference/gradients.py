"""Central differences, and options of a decoder small enough for them."""

import numpy as np

from atlas.reference.options import Options

STEP = 1e-5  # of central differences: its square and 1e-16 / STEP are both below 1e-9


def central_difference(f, array, place) -> float:
    """Return the slope of f() with respect to one element of an array."""
    kept = array[place]
    array[place] = kept + STEP
    above = f()
    array[place] = kept - STEP
    below = f()
    array[place] = kept
    return (above - below) / (2 * STEP)


def relative_error(found, expected, least=1.0) -> float:
    """Return the largest error divided by the largest expected value, or by ``least`` if larger.

    Some gradients are 0: the bias of keys adds the same to all scores of a query.
    """
    return np.abs(found - expected).max() / max(np.abs(expected).max(), least)


def small_options(**changes) -> Options:
    sizes = {"vocab_size": 11, "context_length": 8, "d_model": 8, "n_layer": 2, "n_head": 4}
    return Options(**(sizes | {"n_kv_head": 2, "d_ff": 6} | changes))
