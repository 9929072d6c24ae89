"""A model that is to be exported, with all that goes with it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from atlas.errors import AtlasError
from atlas.export.about import About
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel
from atlas.model.storage import check_tokenizer, load_model
from atlas.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Source:
    """A model, its tokenizer, and what is said of them.

    Attributes:
        folder: with config.json and model.safetensors.
        config: what the former says.
        tokenizer: the one that the model was trained with.
        about: what the exported files say of it.
    """

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    about: About

    @cached_property
    def model(self) -> LanguageModel:
        """The model itself, on the CPU; loaded when it is first asked for."""
        return load_model(self.folder, torch.device("cpu"))

    @classmethod
    def load(cls, folder: Path, tokenizer: Path, about: About) -> "Source":
        """Reads what goes together, and refuses what does not.

        Raises:
            AtlasError: a file is missing or damaged; the tokenizer is another one, or has another
                number of pieces than the model has rows.
        """
        config = ModelConfig.read(folder)
        found = Tokenizer.load(tokenizer)
        check_tokenizer(config, found.sha256, str(tokenizer), str(folder))
        if config.vocab_size != found.vocab_size:
            raise AtlasError(
                f"{folder}: its embedding has {config.vocab_size} rows and {tokenizer} "
                f"{found.vocab_size} pieces, and each piece needs exactly one: train the model "
                "with this tokenizer (`dvc repro`)"
            )
        return cls(folder, config, found, about)
