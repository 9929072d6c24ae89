"""Generate text with a PyTorch model, on any device."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from atlas.inference.batch import (
    InferenceBackend,
    Overflow,
    RunningBatch,
    TokenSequence,
    prepare_prompt,
)
from atlas.inference.sampling import Sampling
from atlas.model.attention import KVCache
from atlas.model.language_model import LanguageModel
from atlas.model.logits import Logits
from atlas.model.transformer import Decoder


def generate(
    model: LanguageModel,
    prompt: Sequence[int],
    max_tokens: int,
    sampling: Sampling,
    on_overflow: Overflow = "slide",
) -> list[int]:
    """Continue a prompt, up to the end of a document or ``max_tokens``.

    The model sees the newest ``context_length`` ids. An empty prompt begins a new document.
    """
    return generate_batch(model, [prompt], max_tokens, [sampling], on_overflow)[0]


def generate_batch(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    samplings: Sequence[Sampling],
    on_overflow: Overflow = "slide",
) -> list[list[int]]:
    """Continue several prompts of any length at once, each with its own sampling options.

    Each continuation equals that of ``generate`` alone, except where two tokens are equally likely
    to the sixth digit: a batch rounds differently from a single text.
    """
    sequences = [
        TokenSequence(prepare_prompt(model.config, prompt), max_tokens, sampling)
        for prompt, sampling in zip(prompts, samplings, strict=True)
    ]
    longest = max((len(each.prompt) for each in sequences), default=0) + max_tokens
    room = min(max(1, longest), model.config.context_length)
    backend = torch_backend(model, max(1, len(sequences)), room)
    for sequence in RunningBatch(backend, model.config.end_ids, on_overflow).run(sequences):
        sequence.raise_if_failed()
    return [sequence.output_ids for sequence in sequences]


def torch_backend(model: LanguageModel, slots: int, room: int | None = None) -> InferenceBackend:
    """A backend for a PyTorch model, with a key-value cache if it is a decoder.

    The cache has room for the whole context in each slot, or for ``room`` tokens.
    """
    if isinstance(model, Decoder):
        return CachedBackend(model, slots, room)
    return UncachedBackend(model, slots)


class CachedBackend(InferenceBackend):
    """A decoder with one row of its key-value cache per slot."""

    def __init__(self, model: Decoder, slots: int, room: int | None = None) -> None:
        super().__init__(slots, room or model.config.context_length)
        self._model = model
        config = model.config.model_copy(update={"context_length": self.context_length})
        self._cache = KVCache.empty(config, slots, model.embedding.weight)

    @torch.no_grad()
    def prefill(self, texts: Mapping[int, Sequence[int]]) -> Logits:
        """Replace the texts of slots, one by one, without padding."""
        return _to_numpy(torch.stack([self._read(*each)[-1] for each in texts.items()]))

    @torch.no_grad()
    def score(self, slot: int, ids: Sequence[int]) -> Logits:
        """Replace the text of a slot."""
        return _to_numpy(self._read(slot, ids))

    @torch.no_grad()
    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Append a token to the given slots.

        The model runs over all rows. The others read a padding token into the column of their
        next token, which will overwrite it.
        """
        before = list(self._cache.lengths)
        # A full slot has no next column, but will only be used for a new text: any column will do.
        self._cache.lengths = [min(length, self.context_length - 1) for length in before]
        ids = torch.tensor([[tokens.get(slot, 0)] for slot in range(self.slots)])
        logits = self._model(ids.to(self._model.device), cache=self._cache)[:, 0]
        self._cache.lengths = [length + (slot in tokens) for slot, length in enumerate(before)]
        return _to_numpy(logits[list(tokens)])

    def _read(self, slot: int, ids: Sequence[int]) -> torch.Tensor:
        """Logits (T, V) of the token after each id of a new text."""
        new = torch.tensor([list(ids)], device=self._model.device)
        logits: torch.Tensor = self._model(new, cache=self._cache.row(slot))[0]
        self._cache.lengths[slot] = len(ids)
        return logits


class UncachedBackend(InferenceBackend):
    """A model without a cache: it reads each whole text again for each token."""

    def __init__(self, model: LanguageModel, slots: int) -> None:
        super().__init__(slots, model.config.context_length)
        self.can_slide = model.config.kind != "encoder_decoder"  # its answer needs the question
        self._model = model
        self._texts: list[list[int]] = [[] for _ in range(slots)]

    def prefill(self, texts: Mapping[int, Sequence[int]]) -> Logits:
        """Replace the texts of slots."""
        for slot, ids in texts.items():
            self._texts[slot] = list(ids)
        return self._forward(list(texts))

    @torch.no_grad()
    def score(self, slot: int, ids: Sequence[int]) -> Logits:
        """Replace the text of a slot."""
        self._texts[slot] = list(ids)
        logits = _to_numpy(self._model(torch.tensor([list(ids)], device=self._model.device))[0])
        kind, separator = self._model.config.kind, self._model.config.separator
        if kind == "encoder_decoder" and separator is not None:
            logits[: list(ids).index(separator)] = np.nan  # it predicts only from there on
        return logits

    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Append a token to the given slots."""
        for slot, token in tokens.items():
            self._texts[slot].append(token)
        return self._forward(list(tokens))

    @torch.no_grad()
    def _forward(self, slots: list[int]) -> Logits:
        texts = [self._texts[slot] for slot in slots]
        longest = max(map(len, texts))
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        mask = torch.arange(longest) < torch.tensor([[len(text)] for text in texts])
        device = self._model.device
        logits = self._model(ids.to(device), mask.to(device))
        last = torch.tensor([len(text) - 1 for text in texts], device=device)
        return _to_numpy(logits[torch.arange(len(texts), device=device), last])


def _to_numpy(logits: torch.Tensor) -> Logits:
    return logits.float().cpu().numpy()
