"""A Hugging Face folder, run by transformers.

Folders come from anywhere, so no code in them runs: no Python files (``auto_map``), no pickles.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.base import MAX_CONTEXT_LENGTH, PLAIN_CHAT, ForeignModel
from atlas.inference.batch import InferenceBackend
from atlas.model.logits import Logits

EXPANSION, SPARE_BYTES = 8, 1 << 28  # of quantized weights, and of small models
MAX_WEIGHTS = 50_000  # matrices and vectors
SAFE = {"local_files_only": True, "trust_remote_code": False}


@contextmanager
def one_error(problem: str) -> Iterator[None]:
    """Report an error of any kind, as libraries raise for damaged files, in one line."""
    try:
        yield
    except (AtlasError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Rust is not an Exception
        if "trust_remote_code" in str(error):
            error = ValueError("it needs code of its own, which Atlas never runs")
        raise AtlasError(f"{problem} ({one_line(error)[:200]})") from None


@contextmanager
def limited_size(folder: Path) -> Iterator[None]:
    """Reject a model with far more weights than its files, before memory is used for them.

    transformers fills what the files lack with random numbers.
    """
    files = folder.glob("*.safetensors")
    left = EXPANSION * sum(file.stat().st_size for file in files) + SPARE_BYTES
    count = 0

    def check(_module: torch.nn.Module, _name: str, weight: torch.nn.Parameter) -> None:
        nonlocal left, count
        left -= weight.numel() * weight.element_size()
        count += 1
        if left < 0 or count > MAX_WEIGHTS:
            raise ValueError("config.json describes a model far larger than its weights")

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()


class HuggingFaceModel(ForeignModel):
    """Any causal language model that transformers can load without remote code."""

    engine = "transformers"

    def __init__(self, folder: Path, device: torch.device) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import transformers

        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
        with one_error(f"{folder}: transformers can't load it"), limited_size(folder):
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **SAFE)
            model, loading = transformers.AutoModelForCausalLM.from_pretrained(
                folder, **SAFE, use_safetensors=True, output_loading_info=True
            )
            if missing := sorted(loading["missing_keys"]):
                raise ValueError(f"its files lack {missing[0]}")
            # Loaded weights may still be mapped: cutting the file short would end the process.
            for weight in model.state_dict(keep_vars=True).values():
                weight.data = weight.data.clone()
            self._model = model.eval().to(device)
            self.vocab_size = int(model.config.vocab_size)
            positions = int(getattr(model.config, "max_position_embeddings", MAX_CONTEXT_LENGTH))
            if min(positions, self.vocab_size) < 1:
                raise ValueError("max_position_embeddings or vocab_size is less than 1")
            ends = model.generation_config.eos_token_id
            ends = [self._tokenizer.eos_token_id] if ends is None else ends
            self.end_ids = frozenset(ends if isinstance(ends, list) else [ends]) - {None}
            has_template = bool(self._tokenizer.chat_template)
            self.chat_template = self._tokenizer.get_chat_template() if has_template else PLAIN_CHAT
            self.bos = self._tokenizer.bos_token_id
            self.special_tokens = self._tokenizer.special_tokens_map
            added = self._tokenizer.added_tokens_decoder.values()
            self.special_names = {each.content for each in added if each.special}
        self.name = folder.resolve().name
        self.context_length = min(positions, MAX_CONTEXT_LENGTH)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        """The ids of a text."""
        options = {
            "add_special_tokens": add_special,
            "split_special_tokens": not parse_special,
        }
        with one_error(f"{self.name}: its tokenizer can't encode this text"):
            ids: list[int] = self._tokenizer(text, **options)["input_ids"]
        if max(ids, default=0) >= self.vocab_size:
            raise AtlasError(
                f"{self.name}: its tokenizer gives the id {max(ids)}, but the model has "
                f"{self.vocab_size} tokens; get another copy of the model"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids."""
        with one_error(f"{self.name}: its tokenizer can't decode"):
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
        with one_error("transformers can't run the model"):
            result = self._model(new, past_key_values=self._caches[slot], use_cache=True)
        self._caches[slot] = result.past_key_values
        logits: Logits = result.logits[0].float().cpu().numpy()
        return logits
