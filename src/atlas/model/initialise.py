"""The weights that training starts from. All of it is in this one function."""

import math

import torch
from torch import nn

from atlas.model.decoder import Decoder


def initialise(model: Decoder, seed: int) -> None:
    """Draws every weight of a decoder, the same for the same seed.

    Matrices and embeddings are normal with a variance of 2 / (5 d_model) ("SmallInit", Nguyen
    and Salazar 2019, arXiv:1910.05895), which at GPT-2's width is close to its 0.02. Those
    that write into the residual stream are divided by the root of the number of such writes,
    so that the stream does not grow with depth (GPT-2, section 2.3). Biases are 0, scales of
    norms are 1.
    """
    standard = math.sqrt(2 / (5 * model.config.d_model))
    generator = torch.Generator().manual_seed(seed)
    writes_per_block = 2
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            deviation = standard
            if name.endswith(("attention.output", "feed_forward.down")):
                deviation /= math.sqrt(writes_per_block * model.config.n_layer)
            nn.init.normal_(module.weight, std=deviation, generator=generator)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            nn.init.ones_(module.weight)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)
