"""Arrays, and weights by name.

The weights of a model are one dict from PyTorch's names to arrays. A part of the model sees its
own, under shorter names::

    parameters                      {"blocks.0.attention.query.weight": ..., ...}
    part(parameters, "blocks.0")    {"attention.query.weight": ..., ...}
    whole("blocks.0", gradients)    and back
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Scalar = np.floating[Any]  # a loss: of the dtype of the logits
Parameters = dict[str, Array]
Gradients = dict[str, Array]  # of the loss, with the keys and shapes of the parameters
Cache = Any  # what a forward pass keeps for its backward pass, and no one else's business


def part(parameters: Parameters, name: str) -> Parameters:
    """The weights of the part ``name``, their names without it."""
    prefix = f"{name}."
    return {
        key.removeprefix(prefix): array
        for key, array in parameters.items()
        if key.startswith(prefix)
    }


def whole(name: str, gradients: Gradients) -> Gradients:
    """The gradients of the part ``name`` under their names in the whole: undoes ``part``."""
    return {f"{name}.{key}": array for key, array in gradients.items()}


def rows(x: Array) -> Array:
    """(..., C) to (N, C): one row a token, so that a product is one call of BLAS."""
    return x.reshape(-1, x.shape[-1])
