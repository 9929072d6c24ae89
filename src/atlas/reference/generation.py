"""Greedy generation: the likeliest token, again and again."""

import numpy as np

from atlas.reference.arrays import Array, Parameters
from atlas.reference.decoder import decoder_forward
from atlas.reference.options import Options


def generate(
    parameters: Parameters,
    options: Options,
    prompts: Array,
    new_tokens: int,
    mask: Array | None = None,
) -> Array:
    """The ``new_tokens`` likeliest ids after each of ``prompts`` (B, T), one by one: (B, new).

    Prompts of several lengths are padded on the left, with a mask (B, T) that is False there.
    Everything is computed again for each token: what a key-value cache saves is not the point
    here.

    Raises:
        ValueError: as in ``decoder_forward``; the new tokens must fit into the context too.
    """
    ids = prompts
    for _ in range(new_tokens):
        logits, _ = decoder_forward(parameters, options, ids, mask)  # (B, T, V)
        likeliest = logits[:, -1].argmax(-1)[:, None]  # (B, 1)
        ids = np.concatenate((ids, likeliest), axis=1)
        if mask is not None:
            mask = np.pad(mask, ((0, 0), (0, 1)), constant_values=True)
    return ids[:, prompts.shape[1] :]
