"""Text to ids and back, by a sentencepiece model that llama.cpp understands to the letter."""

from collections.abc import Sequence
from pathlib import Path

from sentencepiece import SentencePieceProcessor

from atlas.errors import AtlasError
from atlas.files import sha256

MODEL_FILE = "tokenizer.model"
END_OF_TEXT = "<|endoftext|>"


class Tokenizer:
    """A trained tokenizer.

    Attributes:
        vocab_size: number of pieces; ids are below it.
        end_of_text: id of ``<|endoftext|>``, which ends each document and begins generation.
            Text never encodes to it, not even the same characters.
        sha256: of the model file; token shards carry it.
        processor: the sentencepiece model.
    """

    def __init__(self, model_file: Path) -> None:
        """Loads a sentencepiece model.

        Raises:
            AtlasError: there is no such file, or it is no model with ``<|endoftext|>``.
        """
        if not model_file.is_file():
            raise AtlasError(f"{model_file}: no such file; `dvc repro` makes it")
        try:
            self.processor = SentencePieceProcessor(model_file=str(model_file))
        except (RuntimeError, OSError):
            raise AtlasError(
                f"{model_file}: not a sentencepiece model; `dvc repro -f train_tokenizer` makes it"
            ) from None
        self.vocab_size: int = self.processor.vocab_size()
        self.end_of_text: int = self.processor.piece_to_id(END_OF_TEXT)
        if not self.processor.is_control(self.end_of_text):
            raise AtlasError(f"{model_file}: it has no control piece {END_OF_TEXT}")
        self.sha256 = sha256(model_file)

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """Loads the tokenizer of a folder that train_tokenizer wrote."""
        return cls(folder / MODEL_FILE)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without any special one."""
        ids: list[int] = self.processor.encode(text)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones give nothing, broken UTF-8 gives U+FFFD."""
        text: str = self.processor.decode(list(ids))
        return text

    def piece(self, identity: int) -> str:
        """The piece of an id as sentencepiece writes it, blanks as U+2581."""
        text: str = self.processor.id_to_piece(identity)
        return text
