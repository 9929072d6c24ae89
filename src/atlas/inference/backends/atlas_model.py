"""A model that the pipeline made: a folder that train wrote, and the tokenizer beside it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from atlas.inference.backends.loaded_model import Message, OpenedModel
from atlas.inference.batch import Beyond
from atlas.inference.generate import beyond_of, opening
from atlas.inference.slots import Slots, slots_of
from atlas.inference.text_stream import UNKNOWN
from atlas.model.decoder import Decoder
from atlas.model.language_model import LanguageModel
from atlas.model.storage import check_tokenizer, load_model
from atlas.tokens.tokenizer import Tokenizer


class AtlasModel(OpenedModel):
    """A model of the family, in PyTorch."""

    form = "Atlas"

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, name: str) -> None:
        self.name = name
        self.model = model
        self.tokenizer = tokenizer
        self.context_length = model.config.context_length
        self.vocab_size = model.config.vocab_size
        self.ends = frozenset({model.config.eos})
        self.tells_attention = isinstance(model, Decoder)

    @classmethod
    def load(cls, folder: Path, tokenizer: Path, device: torch.device) -> "AtlasModel":
        """Reads a folder that train wrote.

        Raises:
            AtlasError: a file is missing or damaged, or the tokenizer is another one.
        """
        model = load_model(folder, device)
        found = Tokenizer.load(tokenizer)
        check_tokenizer(model.config, found.sha256, str(tokenizer), str(folder))
        name = folder.resolve().name
        return cls(model, found, "atlas" if name == "model" else name)

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt."""
        return opening(self.model.config, self.tokenizer.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self.tokenizer.decode(ids)

    def piece(self, identity: int) -> str:
        """The text of one id; of a byte or a special one, its name."""
        text = self.decode([identity])
        return text if text and UNKNOWN not in text else self.tokenizer.piece(identity)

    def piece_bytes(self, identity: int) -> bytes | None:
        """The bytes of one id."""
        if self.tokenizer.processor.is_byte(identity):
            return bytes([int(self.tokenizer.piece(identity)[1:-1], 16)])  # <0xE2>
        return super().piece_bytes(identity)

    def slots(self, count: int) -> Slots:
        """Places in which to continue so many texts at once."""
        return slots_of(self.model, count)

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """As one text; a model that answers questions hears the last one alone."""
        if self.model.config.separator is not None:
            messages = messages[-1:]
        return super().conversation(messages)

    def beyond(self, wanted: Beyond) -> Beyond:
        """What happens where the context ends."""
        return beyond_of(self.model.config, wanted)

    @torch.no_grad()
    def attention(self, ids: Sequence[int]) -> list[list[list[float]]]:
        """How much the last of some ids looks at each: by layer, head and id."""
        if not isinstance(self.model, Decoder):
            return super().attention(ids)
        weights: list[torch.Tensor] = []
        self.model(torch.tensor([list(ids)], device=self.model.device), weights=weights)
        return [each[0, :, -1].cpu().tolist() for each in weights]  # (H, S) each
