"""Slots: places in which one model continues several texts at once, each at its own length."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch

from atlas.inference.numpy_step import NumPyStep, suits
from atlas.model.attention import KVCache
from atlas.model.decoder import Decoder
from atlas.model.language_model import LanguageModel
from atlas.model.logits import Logits

SHORT = 64  # tokens of a text that NumPy reads sooner than PyTorch


class Slots(ABC):
    """From texts to the logits of what comes next, and on from there token by token.

    Attributes:
        count: number of slots, counted from 0.
        context_length: the most tokens a slot holds.
    """

    def __init__(self, count: int, context_length: int) -> None:
        self.count = count
        self.context_length = context_length

    @abstractmethod
    def begin(self, slot: int, ids: Sequence[int]) -> Logits:
        """Reads a text, up to ``context_length`` ids, in place of what a slot had.

        Returns:
            Logits (V,) of the token after it.
        """

    @abstractmethod
    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Reads a token more in each of some slots, which have room for it.

        Returns:
            Logits (N, V) of the token after each, in the order given.
        """


class TorchSlots(Slots):
    """A decoder in PyTorch, wherever it is."""

    def __init__(self, model: Decoder, count: int) -> None:
        super().__init__(count, model.config.context_length)
        self._model = model
        self._cache = KVCache.empty(model.config, count, model.embedding.weight)

    @torch.no_grad()
    def begin(self, slot: int, ids: Sequence[int]) -> Logits:
        """Reads a text in place of what a slot had."""
        row = self._cache.row(slot)
        logits = self._model(torch.tensor([list(ids)], device=self._model.device), cache=row)
        self._cache.lengths[slot] = len(ids)
        return _on_cpu(logits[0, -1])

    @torch.no_grad()
    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Reads a token more in each of some slots.

        The others read one too, into the place of their next, and forget it.
        """
        before = list(self._cache.lengths)
        # A slot that is full has no next place; nothing but another text can follow in it.
        self._cache.lengths = [min(length, self.context_length - 1) for length in before]
        new = torch.tensor([[tokens.get(slot, 0)] for slot in range(self.count)])
        logits = self._model(new.to(self._model.device), cache=self._cache)[:, 0]
        self._cache.lengths = [length + (slot in tokens) for slot, length in enumerate(before)]
        return _on_cpu(logits[list(tokens)])


class NumPySlots(TorchSlots):
    """A decoder on the CPU: single tokens and short texts are read as NumPy does it."""

    def __init__(self, model: Decoder, count: int) -> None:
        super().__init__(model, count)
        self._step = NumPyStep(model, self._cache)

    def begin(self, slot: int, ids: Sequence[int]) -> Logits:
        """Reads a text in place of what a slot had."""
        if len(ids) > SHORT:
            return super().begin(slot, ids)
        logits: Logits = self._step.begin(slot, ids)[0]
        return logits

    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Reads a token more in each of some slots."""
        logits: Logits = self._step(list(tokens), list(tokens.values()))
        return logits


class ReadingSlots(Slots):
    """A model without a cache, which reads each text again for each token."""

    def __init__(self, model: LanguageModel, count: int) -> None:
        super().__init__(count, model.config.context_length)
        self._model = model
        self._texts: list[list[int]] = [[] for _ in range(count)]

    def begin(self, slot: int, ids: Sequence[int]) -> Logits:
        """Reads a text in place of what a slot had."""
        self._texts[slot] = list(ids)
        logits: Logits = self._read([slot])[0]
        return logits

    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Reads the texts of some slots with a token more."""
        for slot, token in tokens.items():
            self._texts[slot].append(token)
        return self._read(list(tokens))

    @torch.no_grad()
    def _read(self, slots: list[int]) -> Logits:
        texts = [self._texts[slot] for slot in slots]
        longest = max(map(len, texts))
        ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
        mask = torch.arange(longest) < torch.tensor([[len(text)] for text in texts])
        device = self._model.device
        logits = self._model(ids.to(device), mask.to(device))
        last = torch.tensor([len(text) - 1 for text in texts], device=device)
        return _on_cpu(logits[torch.arange(len(texts), device=device), last])


def slots_of(model: LanguageModel, count: int) -> Slots:
    """The fastest that can be had of a model, which must not change while they are used."""
    if not isinstance(model, Decoder):
        return ReadingSlots(model, count)
    return NumPySlots(model, count) if suits(model) else TorchSlots(model, count)


def _on_cpu(logits: torch.Tensor) -> Logits:
    return logits.float().cpu().numpy()
