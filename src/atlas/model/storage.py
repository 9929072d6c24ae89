"""Models on disk: config.json and model.safetensors."""

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from atlas.errors import AtlasError
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel
from atlas.model.make import make_model

WEIGHTS = "model.safetensors"
HEAD = "head.weight"


def weights_of(model: LanguageModel) -> dict[str, Tensor]:
    """The weights by name, without the head where it is tied."""
    weights = model.state_dict()
    if model.config.tied_head:
        weights.pop(HEAD, None)
    return weights


def load_weights(model: LanguageModel, weights: dict[str, Tensor]) -> None:
    """Sets all weights of a model from what ``weights_of`` gave.

    Raises:
        RuntimeError: names or shapes differ.
    """
    if model.config.tied_head and HEAD in model.state_dict():
        weights = weights | {HEAD: weights["embedding.weight"]}
    model.load_state_dict(weights)


def save_weights(model: LanguageModel, path: Path) -> None:
    """Writes a safetensors file.

    Raises:
        AtlasError: the disk does not take it.
    """
    try:
        safetensors.torch.save_file(weights_of(model), path)
    except (SafetensorError, OSError) as error:
        raise AtlasError(f"{path}: not written ({error}); free some space and run again") from None


def load_model(folder: Path, device: torch.device) -> LanguageModel:
    """Reads a model that train wrote, ready for evaluation.

    Raises:
        AtlasError: a file is missing or not what config.json says.
    """
    config = ModelConfig.read(folder)
    model = make_model(config)
    path = folder / WEIGHTS
    try:
        load_weights(model, safetensors.torch.load_file(path))
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise AtlasError(f"{path}: not the weights of config.json ({reason})") from None
    return model.to(device).eval()


def check_tokenizer(config: ModelConfig, tokenizer_sha256: str, made_with: str) -> None:
    """Refuses a tokenizer, or what was made with one, that the model was not trained with.

    Raises:
        AtlasError: it is another one.
    """
    if config.tokenizer_sha256 != tokenizer_sha256:
        raise AtlasError(
            f"{made_with}: of another tokenizer than the one that models/model was trained with; "
            "`dvc repro` makes both fit"
        )
