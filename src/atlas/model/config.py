"""What a model is: the options of params.yaml, and the vocabulary that it was made for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from atlas.errors import AtlasError, one_line
from atlas.params.schema import ModelParams
from atlas.pipeline.files import write_json

FILE = "config.json"


class ModelConfig(ModelParams):
    """The options of ``model`` in params.yaml, and what the model must know of its tokenizer.

    Attributes:
        vocab_size: number of ids.
        eos: the id that ends a document and begins generation.
        separator: the id after which the answer of a document begins; None where documents are
            no questions.
        add_bos_token: whether every text that it reads begins with ``eos``, as the windows of its
            training did: those that were padded to documents, while packed ones begin anywhere.
        tokenizer_sha256: of the tokenizer's model file.
        learned_tokens: tokens of the training text that there were to learn from, the first ones.
    """

    vocab_size: int
    eos: int
    separator: int | None
    add_bos_token: bool
    tokenizer_sha256: str
    learned_tokens: int

    @property
    def head_size(self) -> int:
        """D, the width of a head."""
        return self.d_model // self.n_head

    @property
    def key_channels(self) -> int:
        """K * D, the width of the keys of all heads, and of the values."""
        return self.n_kv_head * self.head_size

    def with_bos(self, ids: Sequence[int]) -> list[int]:
        """Put ``eos`` in front where the model expects it, and where there are no ids."""
        return [self.eos, *ids] if self.add_bos_token or not ids else list(ids)

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
        except FileNotFoundError:
            raise AtlasError(f"{path}: no such file; `dvc repro` makes it") from None
        except (OSError, ValueError) as error:
            raise AtlasError(
                f"{path}: not a model of this version ({one_line(error)[:120]}); "
                "`dvc repro -f train` makes it again"
            ) from None


def check_tokenizer(
    config: ModelConfig, tokenizer_sha256: str, made_with: str, model: str = "models/model"
) -> None:
    """Refuses a tokenizer, or what was made with one, that the model was not trained with.

    Raises:
        AtlasError: it is another one.
    """
    if config.tokenizer_sha256 != tokenizer_sha256:
        raise AtlasError(
            f"{made_with}: of another tokenizer than the one that {model} was trained with; "
            "`dvc repro` makes both fit"
        )
