"""A Hugging Face folder, run by transformers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.loaded_model import (
    MOST_CONTEXT,
    Message,
    OpenedModel,
    refuse_no_beginning,
    template_of,
)
from atlas.inference.slots import Slots
from atlas.model.logits import Logits


class HuggingFaceModel(OpenedModel):
    """Any causal language model that transformers knows."""

    form = "Hugging Face"

    def __init__(self, folder: Path, device: torch.device) -> None:
        """Loads a folder.

        Raises:
            AtlasError: transformers can't.
        """
        import transformers

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        load = {"local_files_only": True}
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **load)
            self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, **load)
        except Exception as error:  # whatever is wrong with the folder
            raise AtlasError(
                f"{folder}: transformers can't load it ({one_line(error)[:200]})"
            ) from None
        self._model = self._model.eval().to(device)
        config = self._model.config
        self.name = folder.resolve().name
        self.vocab_size = int(config.vocab_size)
        longest = int(getattr(config, "max_position_embeddings", MOST_CONTEXT))
        self.context_length = min(longest, MOST_CONTEXT)
        ends = self._model.generation_config.eos_token_id
        ends = [self._tokenizer.eos_token_id] if ends is None else ends
        self.ends = frozenset(ends if isinstance(ends, list) else [ends]) - {None}

    def encode(self, text: str) -> list[int]:
        """The ids of a prompt, as the tokenizer begins one."""
        return self._begun(self._tokenizer(text, split_special_tokens=True)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def slots(self, count: int) -> Slots:
        """Places in which to continue so many texts at once."""
        return HuggingFaceSlots(self._model, count, self.context_length)

    def conversation(self, messages: Sequence[Message]) -> list[int]:
        """In the template of the tokenizer, if it has one."""
        if not self._tokenizer.chat_template:
            return super().conversation(messages)
        with template_of(self.name):
            text = self._tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=True
            )
        return self._begun(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _begun(self, ids: list[int]) -> list[int]:
        return refuse_no_beginning(self.name, ids, self._tokenizer.bos_token_id)


class HuggingFaceSlots(Slots):
    """A cache of transformers for each slot, one read after the other."""

    def __init__(self, model: Any, count: int, context_length: int) -> None:
        super().__init__(count, context_length)
        self._model = model
        self._caches: list[Any] = [None] * count

    def begin(self, slot: int, ids: Sequence[int]) -> Logits:
        """Reads a text in place of what a slot had."""
        self._caches[slot] = None
        return self._read(slot, ids)

    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Reads a token more in each of some slots."""
        return np.stack([self._read(slot, [token]) for slot, token in tokens.items()])

    @torch.no_grad()
    def _read(self, slot: int, ids: Sequence[int]) -> Logits:
        new = torch.tensor([list(ids)], device=self._model.device)
        result = self._model(new, past_key_values=self._caches[slot], use_cache=True)
        self._caches[slot] = result.past_key_values
        logits: Logits = result.logits[0, -1].float().cpu().numpy()
        return logits
