"""A trained model with everything an export needs: config, weights, tokenizer, metadata."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atlas.errors import AtlasError
from atlas.export.metadata import ModelMetadata
from atlas.model.config import ModelConfig, check_tokenizer
from atlas.model.decoder import Decoder
from atlas.model.storage import WEIGHTS, load_model
from atlas.tokens.tokenizer import Tokenizer

FLOATS = ("F64", "F32", "F16", "BF16")  # safetensors' names


class StoredWeights:
    """The weights of a model folder, read one tensor at a time.

    safetensors maps the file into memory, and pages that were read count as memory of the process
    until the file is unmapped. Opening the file anew for each tensor keeps that to one tensor.

    Attributes:
        shapes: shape of each tensor, by name.
    """

    def __init__(self, folder: Path) -> None:
        """Read names and shapes.

        Raises:
            AtlasError: the file is missing or damaged, or a tensor is not of a float type.
        """
        self._path = folder / WEIGHTS
        self.shapes: dict[str, tuple[int, ...]] = {}
        try:
            with safe_open(self._path, framework="pt") as file:
                for name in file.offset_keys():
                    tensor = file.get_slice(name)
                    self.shapes[name] = tuple(tensor.get_shape())
                    if (kind := tensor.get_dtype()) not in FLOATS:
                        raise AtlasError(f"{self._path}: {name} has type {kind}, not a float type")
        except (OSError, SafetensorError) as error:
            raise AtlasError(
                f"{self._path}: cannot be read ({error}); run `dvc repro` to train the model again"
            ) from None

    def read(self, name: str) -> Tensor:
        """Read a tensor as float32; a stored float32 tensor stays on disk until it is used."""
        with safe_open(self._path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor.float()

    def parameter_count(self) -> int:
        """Count the weights, a tied head once."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())


@dataclass(frozen=True)
class ModelBundle:
    """A model folder, its tokenizer and its metadata.

    Attributes:
        folder: holds config.json and model.safetensors.
        config: the contents of config.json.
        tokenizer: the tokenizer that the model was trained with.
        metadata: what the exported files say about the model.
    """

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    metadata: ModelMetadata

    @classmethod
    def load(cls, folder: Path, tokenizer: Path, metadata: ModelMetadata) -> "ModelBundle":
        """Read a model and its tokenizer, and check that they belong together.

        Raises:
            AtlasError: a file is missing or damaged; the model was trained with another tokenizer,
                or has another number of embedding rows than the tokenizer has pieces.
        """
        config = ModelConfig.read(folder)
        loaded = Tokenizer.load(tokenizer)
        check_tokenizer(config, loaded.sha256, str(tokenizer), str(folder))
        if config.vocab_size != loaded.vocab_size:
            raise AtlasError(
                f"{folder}: the embedding has {config.vocab_size} rows, but {tokenizer} has "
                f"{loaded.vocab_size} pieces; train the model with this tokenizer (`dvc repro`)"
            )
        return cls(folder, config, loaded, metadata)

    @cached_property
    def model(self) -> Decoder:
        """The model on the CPU, loaded on first use.

        Raises:
            AtlasError: the weights are missing or damaged, or the model is not a decoder.
        """
        model = load_model(self.folder, torch.device("cpu"))
        if not isinstance(model, Decoder):
            kind = self.config.kind
            raise AtlasError(f"{self.folder}: only decoders can be exported, and this is a {kind}")
        return model

    @property
    def weights(self) -> StoredWeights:
        """The weights on disk."""
        return StoredWeights(self.folder)
