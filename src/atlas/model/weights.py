"""Weights: drawn for a new model, written to model.safetensors, and read back."""

import math
from collections import Counter
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from atlas.errors import AtlasError, NotWritten
from atlas.model.baselines import Bigram, TwoLayerNetwork
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel
from atlas.model.transformer import Decoder, EncoderDecoder

Scheme = Literal["scaled", "normal", "zero"]
WRITERS = ("attention.output", "feed_forward.down")  # they write to the residual stream
BRANCH_NORMS = ("attention_norm", "feed_forward_norm")
WEIGHTS, LAST_WEIGHTS = "model.safetensors", "last.safetensors"
HEAD = "head.weight"


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
            is_zero = scheme == "zero" and norm_is_last and name.endswith(BRANCH_NORMS)
            nn.init.constant_(module.weight, 0.0 if is_zero else 1.0)
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


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    """Return the weights by name, without a tied head."""
    return without_tied_head(model.config, model.state_dict())


def without_tied_head(config: ModelConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the head if it is the embedding."""
    return {
        name: weight for name, weight in weights.items() if not (config.tied_head and name == HEAD)
    }


def with_tied_head(config: ModelConfig, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the head if it is the embedding of a transformer."""
    tied = config.tied_head and config.kind in ("decoder", "encoder_decoder")
    has_embedding = "embedding.weight" in weights  # not if only some weights are trained
    return weights | {HEAD: weights["embedding.weight"]} if tied and has_embedding else weights


def load_weights(model: LanguageModel, weights: dict[str, Tensor]) -> None:
    """Set all weights of a model from the result of ``weights_of``."""
    model.load_state_dict(with_tied_head(model.config, weights))


def save_weights(model: LanguageModel, path: Path) -> None:
    """Write the weights of a model as a safetensors file."""
    write_weights(weights_of(model), path)


def write_weights(
    weights: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Write weights by name as a safetensors file."""
    try:
        safetensors.torch.save_file(weights, path, metadata)
        path.chmod(path.parent.stat().st_mode & 0o666)  # otherwise readable only by its owner
    except (SafetensorError, OSError) as error:
        raise NotWritten(path, error) from None


def load_model(
    folder: Path, device: torch.device, weights: Literal["best", "last"] = "best"
) -> LanguageModel:
    """Load a model written by train, in eval mode; the best weights had the lowest val loss."""
    config = ModelConfig.read(folder)
    model = make_model(config)
    path = folder / (LAST_WEIGHTS if weights == "last" else WEIGHTS)
    try:
        load_weights(model, safetensors.torch.load_file(path))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise AtlasError(f"{path}: not the weights that config.json describes ({reason})") from None
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise AtlasError(f"{path}: {name} has values that are not finite; train it again")
    return model.to(device).eval()
