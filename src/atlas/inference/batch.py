"""Texts that grow together, a token each at a time; any of them may begin or end between two."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from atlas.inference.sampling import Sampling, log_softmax, next_token
from atlas.inference.slots import Slots
from atlas.model.logits import Logits

Beyond = Literal["slide", "stop"]
Ended = Literal["stop", "length", "failed"]


@dataclass(frozen=True)
class Token:
    """A token that was picked.

    Attributes:
        id: of it.
        logprob: natural logarithm of the probability that the model itself gave it; None if it
            was not asked for.
        alternatives: the likeliest ids there and their logarithms, likeliest first.
    """

    id: int
    logprob: float | None = None
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass
class Text:
    """A text that is being continued.

    Attributes:
        prompt: ids to continue, at least one.
        most_tokens: to add.
        sampling: how they are picked.
        alternatives: how many of the likeliest ids are told of each place; None for not even the
            probability of the one picked.
        written: ids that were added.
        newest: the token of the last step; None if the text ended without one.
        ended: why it has, ``stop`` for the end of a text, ``failed`` where the model computed no
            numbers; None while it grows.
    """

    prompt: Sequence[int]
    most_tokens: int
    sampling: Sampling
    alternatives: int | None = None
    written: list[int] = field(default_factory=list)
    newest: Token | None = None
    ended: Ended | None = None

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng(self.sampling.seed)

    def pick(self, logits: Logits, ends: Collection[int]) -> None:
        """Adds a token, or ends, by the logits (V,) of what comes next."""
        if not np.isfinite(logits).all():
            self.newest, self.ended = None, "failed"
            return
        token = next_token(logits, self.sampling, self._generator, self.prompt, self.written)
        if token in ends:
            self.newest, self.ended = None, "stop"
            return
        self.written.append(token)
        self.newest = self._told(logits, token)
        if len(self.written) >= self.most_tokens:
            self.ended = "length"

    def _told(self, logits: Logits, token: int) -> Token:
        if self.alternatives is None:
            return Token(token)
        logprobs = log_softmax(logits)
        likeliest = np.argsort(-logprobs, kind="stable")[: self.alternatives]
        pairs = tuple((int(each), float(logprobs[each])) for each in likeliest)
        return Token(token, float(logprobs[token]), pairs)


def visible(length: int, context_length: int) -> int:
    """How many of a text's newest ids a model sees that slides, once it has so many.

    ``Batch`` counts them one by one; this is where it arrives, for a prompt within the context.
    """
    if length <= context_length:
        return length
    half = max(1, context_length // 2)
    return half + (length - context_length - 1) % (context_length - half + 1)


class Batch:
    """The texts in the slots of a model.

    A slot holds ``context_length`` tokens. When a text would grow beyond, it ends (``stop``), or
    (``slide``) the model forgets the older half of what it saw and reads the newer one again: that
    costs a reading every half context, and what a token sees is always exactly known.
    """

    def __init__(self, slots: Slots, ends: Collection[int], beyond: Beyond = "slide") -> None:
        self._slots = slots
        self._ends = frozenset(ends)
        self._beyond = beyond
        self._texts: dict[int, Text] = {}  # by slot
        self._seen: dict[int, int] = {}  # by slot, tokens of its text that it holds

    @property
    def free(self) -> int:
        """Slots without a text."""
        return self._slots.count - len(self._texts)

    @property
    def growing(self) -> int:
        """Texts that have not ended."""
        return len(self._texts)

    def add(self, text: Text) -> None:
        """Reads the prompt of a text, of which the newest tokens fit, and picks its first token.

        Raises:
            ValueError: no slot is free.
        """
        taken = self._texts.keys()
        slot = next((each for each in range(self._slots.count) if each not in taken), None)
        if slot is None:
            raise ValueError(f"all {self._slots.count} slots are taken")
        newest = text.prompt[-self._slots.context_length :]
        self._texts[slot], self._seen[slot] = text, len(newest)
        self._picked(slot, self._slots.begin(slot, newest))

    def grow(self, texts: Iterable[Text]) -> Iterator[Text]:
        """Grows texts to their ends; yields each of them whenever it has a new token or ended."""
        for text in texts:
            self.add(text)
            yield text
        while self._texts:
            yield from self.step()

    def remove(self, text: Text) -> None:
        """Frees the slot of a text, if it has one still."""
        for slot, each in list(self._texts.items()):
            if each is text:
                self._free(slot)

    def step(self) -> list[Text]:
        """Adds a token to every text that grows; returns them, some of which may have ended."""
        growing = dict(self._texts)
        full = [slot for slot in growing if self._seen[slot] == self._slots.context_length]
        for slot in full:
            text = growing[slot]
            newest = [*text.prompt, *text.written][-max(1, self._slots.context_length // 2) :]
            self._seen[slot] = len(newest)
            self._picked(slot, self._slots.begin(slot, newest))
        room = {slot: text.written[-1] for slot, text in growing.items() if slot not in full}
        if room:
            for slot, logits in zip(room, self._slots.step(room), strict=True):
                self._seen[slot] += 1
                self._picked(slot, logits)
        return list(growing.values())

    def _picked(self, slot: int, logits: Logits) -> None:
        text = self._texts[slot]
        text.pick(logits, self._ends)
        full = self._seen[slot] == self._slots.context_length
        if text.ended is None and full and self._beyond == "stop":
            text.ended = "length"
        if text.ended is not None:
            self._free(slot)

    def _free(self, slot: int) -> None:
        del self._texts[slot], self._seen[slot]
