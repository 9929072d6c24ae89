"""Make a model and draw its initial weights, all in one function."""

import math
from collections import Counter
from typing import Literal

import torch
from torch import nn

from atlas.model.baselines import Bigram, TwoLayerNetwork
from atlas.model.config import ModelConfig
from atlas.model.decoder import Decoder
from atlas.model.encoder_decoder import EncoderDecoder
from atlas.model.language_model import LanguageModel

Scheme = Literal["scaled", "normal", "zero"]
WRITERS = ("attention.output", "feed_forward.down")  # they write to the residual stream
BRANCH_NORMS = ("attention_norm", "feed_forward_norm")


def initialize(model: LanguageModel, seed: int, scheme: Scheme = "scaled") -> None:
    """Draw every weight of a model; the same seed gives the same weights.

    Matrices and embeddings are normal with a variance of 2 / (5 C) ("SmallInit", Nguyen and
    Salazar 2019, arXiv:1910.05895), which at GPT-2's width is close to its 0.02. Biases are 0,
    scales of norms are 1. Matrices that write to the residual stream are

    - ``scaled``: divided by the square root of the number of such matrices, so that the stream does
      not grow with depth (GPT-2, section 2.3);
    - ``normal``: like all others;
    - ``zero``: 0, so that every block starts as the identity (Fixup, arXiv:1901.09321). With a norm
      at the end of the branch, its scale is 0 instead, because its input must not be 0.
    """
    deviation = math.sqrt(2 / (5 * model.config.d_model))
    generator = torch.Generator().manual_seed(seed)
    # The first part of a name is the list of blocks, and so the stream, that a module belongs to.
    writers = [name for name, _ in model.named_modules() if name.endswith(WRITERS)]
    writes = Counter(name.split(".")[0] for name in writers)
    norm_is_last = model.config.norm_position == "reordered"
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            factor = 1.0
            if name.endswith(WRITERS) and scheme == "scaled":
                factor = writes[name.split(".")[0]] ** -0.5
            elif name.endswith(WRITERS) and scheme == "zero" and not norm_is_last:
                factor = 0.0
            nn.init.normal_(module.weight, std=deviation * factor, generator=generator)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            begins_silent = scheme == "zero" and norm_is_last and name.endswith(BRANCH_NORMS)
            nn.init.constant_(module.weight, 0.0 if begins_silent else 1.0)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)


KINDS: dict[str, type[LanguageModel]] = {
    "decoder": Decoder,
    "encoder_decoder": EncoderDecoder,
    "two_layer": TwoLayerNetwork,
    "bigram": Bigram,
}


def make_model(config: ModelConfig) -> LanguageModel:
    """Make an uninitialized model; ``initialize`` or a file sets its weights."""
    return KINDS[config.kind](config)
