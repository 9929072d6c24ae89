"""Models on disk: config.json and model.safetensors."""

from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.initialize import make_model
from atlas.model.language_model import LanguageModel

WEIGHTS, LAST_WEIGHTS = "model.safetensors", "last.safetensors"
HEAD = "head.weight"


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
    return weights | {HEAD: weights["embedding.weight"]} if tied else weights


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
        raise AtlasError(f"{path}: not written ({error}); free some space and run again") from None


def load_model(
    folder: Path, device: torch.device, weights: Literal["best", "last"] = "best"
) -> LanguageModel:
    """Load a model written by train, in eval mode; ``best`` has the lowest val loss."""
    config = ModelConfig.read(folder)
    model = make_model(config)
    path = folder / (LAST_WEIGHTS if weights == "last" else WEIGHTS)
    try:
        load_weights(model, safetensors.torch.load_file(path))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise AtlasError(f"{path}: not the weights of config.json ({reason})") from None
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise AtlasError(f"{path}: {name} has values that are not finite; train it again")
    return model.to(device).eval()
