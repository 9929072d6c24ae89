"""What a model is: the options of params.yaml, and the vocabulary that it was made for."""

from pathlib import Path
from typing import Self

from pydantic import ValidationError

from atlas.errors import AtlasError
from atlas.files import write_json
from atlas.params import ModelParams

FILE = "config.json"


class ModelConfig(ModelParams):
    """The options of ``model`` in params.yaml, and what the model must know of its tokenizer.

    Attributes:
        vocab_size: number of ids.
        end_of_text: the id that ends a document and begins generation.
        tokenizer_sha256: of the tokenizer's model file.
    """

    vocab_size: int
    end_of_text: int
    tokenizer_sha256: str

    @property
    def head_size(self) -> int:
        """D, the width of a head."""
        return self.d_model // self.n_head

    def write(self, folder: Path) -> None:
        """Writes config.json."""
        write_json(folder / FILE, self.model_dump())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads config.json.

        Raises:
            AtlasError: there is none, or it is not one of this version.
        """
        path = folder / FILE
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise AtlasError(f"{path}: no model ({reason}); `dvc repro train` makes it") from None
