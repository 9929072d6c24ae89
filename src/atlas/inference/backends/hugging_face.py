"""A Hugging Face folder, run by transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.base import MAX_CONTEXT_LENGTH, PLAIN_CHAT, ForeignModel
from atlas.inference.batch import InferenceBackend
from atlas.model.logits import Logits


class HuggingFaceModel(ForeignModel):
    """Any causal language model that transformers can load without remote code."""

    engine = "transformers"

    def __init__(self, folder: Path, device: torch.device) -> None:
        import transformers

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        options = {"local_files_only": True}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
        except Exception as error:  # of any kind, depending on what is wrong with the folder
            raise AtlasError(
                f"{folder}: transformers can't load it ({one_line(error)[:200]})"
            ) from None
        self._model = model.eval().to(device)
        self.name = folder.resolve().name
        self.vocab_size = int(model.config.vocab_size)
        max_positions = int(getattr(model.config, "max_position_embeddings", MAX_CONTEXT_LENGTH))
        self.context_length = min(max_positions, MAX_CONTEXT_LENGTH)
        ends = model.generation_config.eos_token_id
        ends = [self._tokenizer.eos_token_id] if ends is None else ends
        self.end_ids = frozenset(ends if isinstance(ends, list) else [ends]) - {None}
        has_template = bool(self._tokenizer.chat_template)
        self.chat_template = self._tokenizer.get_chat_template() if has_template else PLAIN_CHAT
        self.bos = self._tokenizer.bos_token_id
        self.special_tokens = self._tokenizer.special_tokens_map

    def tokenize(self, text: str, *, is_chat: bool) -> list[int]:
        """The ids of a text."""
        options = {"add_special_tokens": not is_chat, "split_special_tokens": not is_chat}
        ids: list[int] = self._tokenizer(text, **options)["input_ids"]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def backend(self, slots: int) -> InferenceBackend:
        """A backend with room for this many texts at once."""
        return TransformersBackend(self._model, slots, self.context_length)


class TransformersBackend(InferenceBackend):
    """A transformers model with one key-value cache per slot; slots run one after the other."""

    def __init__(self, model: Any, slots: int, context_length: int) -> None:
        super().__init__(slots, context_length)
        self._model = model
        self._caches: list[Any] = [None] * slots

    def prefill(self, texts: Mapping[int, Sequence[int]]) -> Logits:
        """Replace the texts of slots."""
        for slot in texts:
            self._caches[slot] = None
        return np.stack([self._forward(slot, ids)[-1] for slot, ids in texts.items()])

    def score(self, slot: int, ids: Sequence[int]) -> Logits:
        """Replace the text of a slot."""
        self._caches[slot] = None
        return self._forward(slot, ids)

    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Append a token to the given slots."""
        return np.stack([self._forward(slot, [token])[-1] for slot, token in tokens.items()])

    @torch.no_grad()
    def _forward(self, slot: int, ids: Sequence[int]) -> Logits:
        new = torch.tensor([list(ids)], device=self._model.device)
        result = self._model(new, past_key_values=self._caches[slot], use_cache=True)
        self._caches[slot] = result.past_key_values
        logits: Logits = result.logits[0].float().cpu().numpy()
        return logits
