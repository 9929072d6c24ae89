"""Central differences, and a decoder small enough for them."""

import numpy as np

from atlas.reference.options import Options

STEP = 1e-5  # of central differences: its square and 1e-16 / STEP are both below 1e-9


def central_difference(f, array, place) -> float:
    """The slope of the number f() by the number at one place of an array."""
    kept = array[place]
    array[place] = kept + STEP
    above = f()
    array[place] = kept - STEP
    below = f()
    array[place] = kept
    return (above - below) / (2 * STEP)


def relative_error(found, expected, least=1.0) -> float:
    """The largest error by the largest number expected, or by ``least`` where that is more.

    Some gradients are 0: the bias of keys adds the same to all scores of a query.
    """
    return np.abs(found - expected).max() / max(np.abs(expected).max(), least)


def small_options(**changes) -> Options:
    sizes = {"vocab_size": 11, "context_length": 8, "d_model": 8, "n_layer": 2, "n_head": 4}
    return Options(**(sizes | {"n_kv_head": 2, "d_ff": 6} | changes))
