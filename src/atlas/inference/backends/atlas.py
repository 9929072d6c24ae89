"""A model that the pipeline trained: its folder, and the tokenizer next to it.

The weights run in PyTorch, or in llama.cpp if the F32 GGUF file exported from them is given.
Prompts, tokenizer and sampling are the same for both, so they write the same texts.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from atlas.errors import AtlasError
from atlas.inference.backends.base import (
    MAX_CONTEXT_LENGTH,
    LoadedModel,
    chat_template,
    comes_from_elsewhere,
)
from atlas.inference.batch import InferenceBackend, check_question, prepare_prompt
from atlas.inference.text_stream import UNKNOWN
from atlas.model.config import ModelConfig, check_tokenizer
from atlas.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from atlas.model.language_model import LanguageModel


class AtlasModel(LoadedModel):
    """A model trained by Atlas. PyTorch and the weights are loaded only when needed."""

    def __init__(
        self,
        config: ModelConfig,
        tokenizer: Tokenizer,
        name: str,
        load_torch: Callable[[], "LanguageModel"],
        gguf: Path | None = None,
        *,
        from_elsewhere: bool = False,
    ) -> None:
        """Load the F32 GGUF file, to run in llama.cpp, or the PyTorch model if there is none."""
        self.config, self.tokenizer, self.name = config, tokenizer, name
        self.context_length, self.vocab_size = config.context_length, config.vocab_size
        if from_elsewhere:
            self.context_length = min(self.context_length, MAX_CONTEXT_LENGTH)
        self.end_ids = frozenset(config.end_ids)
        self.has_attention = config.kind == "decoder"
        self.chat_template = chat_template(config, tokenizer, from_elsewhere=from_elsewhere)
        self.special_tokens, self.special_names = tokenizer.special_names, tokenizer.special_ids
        self.engine = "llama.cpp" if gguf else "PyTorch"
        self._load_torch = load_torch
        self._gguf = None
        if gguf is None:
            _ = self.model
        else:
            from atlas.inference.backends.gguf import load_gguf

            self._gguf = load_gguf(gguf)

    @classmethod
    def load(cls, folder: Path, tokenizer_path: Path, gguf: Path | None = None) -> Self:
        """Read a folder that train wrote."""
        config = ModelConfig.read(folder)
        tokenizer = Tokenizer.load(tokenizer_path)
        check_tokenizer(config, tokenizer.sha256, str(tokenizer_path), str(folder))
        name = folder.resolve().name
        state = (folder / "model.safetensors").stat()

        def load_torch() -> "LanguageModel":
            from atlas.model.language_model import choose_device
            from atlas.model.weights import load_model

            now = (folder / "model.safetensors").stat()
            if (now.st_ino, now.st_mtime_ns) != (state.st_ino, state.st_mtime_ns):
                raise AtlasError(f"{folder}: changed since it was loaded; restart to load it again")
            return load_model(folder, choose_device())

        return cls(
            config,
            tokenizer,
            "atlas" if name == "model" else name,
            load_torch,
            gguf,
            from_elsewhere=comes_from_elsewhere(folder),
        )

    @cached_property
    def model(self) -> "LanguageModel":
        """The model in PyTorch."""
        return self._load_torch()

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt."""
        return prepare_prompt(self.config, self.tokenizer.encode(text))

    def encode_special(self, text: str, mark: str = "") -> list[int]:
        """The ids of a conversation that the tokenizer's chat template has written.

        A model that Atlas trained on conversations has seen each after the end of another.
        """
        ids = self.tokenizer.encode_chat(text, mark)
        start = [self.config.bos]
        if self.config.is_chat and self.config.add_bos_token and ids[:1] != start:
            return start + ids
        return ids or start

    def check_prompt(self, ids: Sequence[int]) -> None:
        """Reject ids that the model can't continue."""
        check_question(self.config, ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        return self.tokenizer.decode(ids)

    def piece(self, token: int) -> str:
        """The text of one id, or the name of a byte or special token."""
        text = self.decode([token])
        return text if text and UNKNOWN not in text else self.tokenizer.piece(token)

    def piece_bytes(self, token: int) -> bytes | None:
        """The bytes of one id."""
        return self.tokenizer.piece_bytes(token)

    def backend(self, slots: int) -> InferenceBackend:
        """A backend with room for this many texts at once."""
        if self._gguf is not None:
            from atlas.inference.backends.gguf import LlamaBackend

            return LlamaBackend(self._gguf, slots, self.context_length, exact=True)
        from atlas.inference.generate import torch_backend

        return torch_backend(self.model, slots, self.context_length)

    def attention(self, ids: Sequence[int]) -> list[list[list[float]]]:
        """Attention weights of the last of the ids, by layer, head and id; always from PyTorch."""
        if not self.has_attention:
            return super().attention(ids)
        import torch

        weights: list[torch.Tensor] = []
        with torch.no_grad():
            self.model(torch.tensor([list(ids)], device=self.model.device), weights=weights)
        return [each[0, :, -1].cpu().tolist() for each in weights]  # (H, S) each
