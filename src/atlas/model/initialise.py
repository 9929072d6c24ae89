"""The weights that training starts from. All of it is in this one function."""

import math
from typing import Literal

import torch
from torch import nn

from atlas.model.language_model import LanguageModel

Scheme = Literal["scaled", "normal", "zero"]
WRITERS = ("attention.output", "feed_forward.down")  # what writes into the residual stream


def initialise(model: LanguageModel, seed: int, scheme: Scheme = "scaled") -> None:
    """Draws every weight of a model, the same for the same seed.

    Matrices and embeddings are normal with a variance of 2 / (5 C) ("SmallInit", Nguyen and
    Salazar 2019, arXiv:1910.05895), which at GPT-2's width is close to its 0.02. Biases are 0,
    scales of norms are 1. The matrices that write into the residual stream are

    - ``scaled``: divided by the root of the number of such writes, so that the stream does not
      grow with depth (GPT-2, section 2.3);
    - ``normal``: as all others;
    - ``zero``: 0, so that every block begins as if it were not there (Fixup, arXiv:1901.09321).
    """
    deviation = math.sqrt(2 / (5 * model.config.d_model))
    generator = torch.Generator().manual_seed(seed)
    writers = [name for name, _ in model.named_modules() if name.endswith(WRITERS)]
    factor = {"scaled": len(writers) ** -0.5 if writers else 1.0, "normal": 1.0, "zero": 0.0}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            own = factor[scheme] if name in writers else 1.0
            nn.init.normal_(module.weight, std=deviation * own, generator=generator)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            nn.init.ones_(module.weight)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)
