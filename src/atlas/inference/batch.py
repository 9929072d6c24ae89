"""Continuous batching: each sequence grows by a token per step and can start or end at any step."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from atlas.errors import AtlasError
from atlas.inference.sampling import (
    Sampling,
    log_softmax,
    most_likely,
    next_token,
    sampling_probabilities,
)
from atlas.model.config import ModelConfig
from atlas.model.logits import Logits

Overflow = Literal["slide", "stop"]
FinishReason = Literal["stop", "length", "failed"]


class InferenceBackend(ABC):
    """A model that runs several texts at once, each in its own slot and of any length.

    Slots are numbered from 0; each has room for ``context_length`` tokens.
    """

    can_slide = True  # the oldest tokens of a text may be dropped

    def __init__(self, slots: int, context_length: int) -> None:
        self.slots, self.context_length = slots, context_length

    @abstractmethod
    def prefill(self, texts: Mapping[int, Sequence[int]]) -> Logits:
        """Replace the texts of N slots, each by at least one id.

        Return logits (N, V) of the token after each, in the order given.
        """

    @abstractmethod
    def score(self, slot: int, ids: Sequence[int]) -> Logits:
        """Replace the text of a slot; return logits (T, V) of the token after each of its T ids.

        Rows in which the model predicts nothing are NaN.
        """

    @abstractmethod
    def step(self, tokens: Mapping[int, int]) -> Logits:
        """Append one token to each of N slots (id by slot), which must have room for it.

        Return logits (N, V) of the token after each, in the order given.
        """


@dataclass(frozen=True)
class Token:
    """A sampled token.

    A logprob is the natural log of the model's own probability, before any sampling option; None
    unless requested. ``top_logprobs`` lists the most likely ids at this position, best first.
    ``sampling_probs`` are the probabilities that the sampler used, after all its options: of this
    id, then of those in ``top_logprobs``; empty unless requested.
    """

    id: int
    logprob: float | None = None
    top_logprobs: tuple[tuple[int, float], ...] = ()
    sampling_probs: tuple[float, ...] = ()


@dataclass
class TokenSequence:
    """A prompt and its continuation so far.

    The finish reason is ``stop`` at the end of a document or a stop string, ``length`` at a limit,
    ``failed`` if the logits were not finite, and None while the text grows.
    """

    prompt: Sequence[int]  # at least one id
    max_tokens: int  # of the continuation
    sampling: Sampling
    top_logprobs: int | None = None  # number of ids that a Token lists; None for no logprobs at all
    score_prompt: bool = False  # with logprobs: return those of the prompt too
    scored_prompt: list[Token] = field(default_factory=list)  # the first has no logprob
    sampling_probs: bool = False  # return the sampler's probabilities
    output_ids: list[int] = field(default_factory=list)  # the continuation
    last_token: Token | None = None  # of the last step; None if that step ended the text
    end_token: Token | None = None  # the one that ended the text
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng(self.sampling.seed)

    def accept_prompt(self, logits: Logits) -> None:
        """Score the prompt with logits (T, V), each row those of the token after one of its ids."""
        self.scored_prompt = [Token(self.prompt[0])]
        for row, token in zip(logits, self.prompt[1:], strict=False):
            self.scored_prompt.append(self._with_logprobs(row, token))

    def accept(self, logits: Logits, end_ids: Collection[int]) -> None:
        """Sample the next token from logits (V,), or finish."""
        self.last_token = None
        if not np.isfinite(logits).all():
            self.finish_reason = "failed"
            return
        if self.max_tokens == 0:
            self.finish_reason = "length"
            return
        token = next_token(logits, self.sampling, self._generator, self.prompt, self.output_ids)
        if token in end_ids:
            self.finish_reason = "stop"
            self.end_token = self._with_logprobs(logits, token)
            return
        self.last_token = self._with_logprobs(logits, token)
        if self.sampling_probs:
            self.last_token = self._with_sampling_probs(logits, self.last_token)
        self.output_ids.append(token)
        if len(self.output_ids) >= self.max_tokens:
            self.finish_reason = "length"

    def raise_if_failed(self) -> None:
        """Raise an error if the logits were not finite."""
        if self.finish_reason == "failed":
            raise AtlasError("the model's logits are NaN or infinite; train it again")

    def _with_logprobs(self, logits: Logits, token: int) -> Token:
        if self.top_logprobs is None or np.isnan(logits[token]):
            return Token(token)
        logprobs = log_softmax(logits)
        best = most_likely(logprobs, self.top_logprobs)
        pairs = tuple((int(each), float(logprobs[each])) for each in best)
        return Token(token, float(logprobs[token]), pairs)

    def _with_sampling_probs(self, logits: Logits, token: Token) -> Token:
        """Add the sampler's probabilities to the token that it has just picked."""
        ids = [token.id, *(each for each, _ in token.top_logprobs)]
        options = self.sampling, self.prompt, self.output_ids
        probs = sampling_probabilities(logits, *options)[ids]
        return replace(token, sampling_probs=tuple(probs.tolist()))


def prepare_prompt(config: ModelConfig, ids: Sequence[int]) -> list[int]:
    """Add the start token if the model expects it; an empty prompt always gets it.

    An encoder-decoder only reads a question, and its answer must have room in the context.
    """
    check_question(config, ids)
    return config.with_bos(ids)


def check_question(config: ModelConfig, ids: Sequence[int]) -> None:
    """Reject a prompt that an encoder-decoder can't answer."""
    if config.kind == "encoder_decoder":
        if config.separator not in ids:
            raise AtlasError(
                "the prompt is not a question, and this model only answers questions: end it with "
                "tokenize.prompt_separator"
            )
        if len(ids) >= config.context_length:
            raise AtlasError(
                f"the prompt has {len(ids)} tokens; with a start token and its answer, it must fit "
                f"in model.context_length ({config.context_length}): ask a shorter question"
            )


def visible_tokens(length: int, context_length: int) -> int:
    """Number of newest tokens that a sliding context holds after ``length`` tokens.

    A closed form of the steps of ``RunningBatch``, for prompts that fit in the context.
    With a context of 4 and lengths 1, 2, 3 ...: 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, ...
    """
    if length <= context_length:
        return length
    half = max(1, context_length // 2)
    return half + (length - context_length - 1) % (context_length - half + 1)


class RunningBatch:
    """The sequences that occupy the slots of a backend.

    When a text fills its slot, it ends (``stop``), or the older half of the context is dropped and
    the newer half is read again (``slide``, if the backend can). Sliding costs one prefill per half
    context, and ``visible_tokens`` tells exactly how many tokens each new one sees.
    """

    def __init__(
        self, backend: InferenceBackend, end_ids: Collection[int], on_overflow: Overflow = "slide"
    ) -> None:
        self._backend, self._end_ids = backend, frozenset(end_ids)
        self._slides = on_overflow == "slide" and backend.can_slide
        self._sequences: dict[int, TokenSequence] = {}  # by slot
        self._lengths: dict[int, int] = {}  # tokens in each occupied slot

    @property
    def free_slots(self) -> int:
        """Number of slots without a sequence."""
        return self._backend.slots - len(self._sequences)

    def add(self, sequences: Sequence[TokenSequence]) -> None:
        """Prefill free slots with the newest tokens of prompts and sample their first tokens.

        A prompt to score must fit in the context.
        """
        if len(sequences) > self.free_slots:
            raise ValueError(f"{len(sequences)} sequences for {self.free_slots} free slots")
        free = (slot for slot in range(self._backend.slots) if slot not in self._sequences)
        added = dict(zip(free, sequences, strict=False))
        self._sequences |= added
        length = self._backend.context_length
        self._prefill(
            {slot: each.prompt[-length:] for slot, each in added.items() if not each.score_prompt}
        )
        for slot, each in added.items():
            if each.score_prompt:
                logits = self._backend.score(slot, each.prompt)
                self._lengths[slot] = len(each.prompt)
                each.accept_prompt(logits)
                self._accept(slot, logits[-1])

    def run(self, sequences: Sequence[TokenSequence]) -> Iterator[TokenSequence]:
        """Generate until all are finished; yield each sequence after each of its steps."""
        self.add(sequences)
        yield from sequences
        while self._sequences:
            yield from self.step()

    def remove(self, sequence: TokenSequence) -> None:
        """Free the slot of a sequence; a finished one has none."""
        for slot, each in list(self._sequences.items()):
            if each is sequence:
                self._release(slot)

    def step(self) -> list[TokenSequence]:
        """Add a token to every active sequence; return them, including those that finish now."""
        active = dict(self._sequences)
        full = [slot for slot in active if self._lengths[slot] == self._backend.context_length]
        half = max(1, self._backend.context_length // 2)
        self._prefill(
            {slot: [*active[slot].prompt, *active[slot].output_ids][-half:] for slot in full}
        )
        tokens = {slot: each.output_ids[-1] for slot, each in active.items() if slot not in full}
        if tokens:
            for slot, logits in zip(tokens, self._backend.step(tokens), strict=True):
                self._lengths[slot] += 1
                self._accept(slot, logits)
        return list(active.values())

    def _prefill(self, texts: Mapping[int, Sequence[int]]) -> None:
        if texts:
            for slot, logits in zip(texts, self._backend.prefill(texts), strict=True):
                self._lengths[slot] = len(texts[slot])
                self._accept(slot, logits)

    def _accept(self, slot: int, logits: Logits) -> None:
        sequence = self._sequences[slot]
        sequence.accept(logits, self._end_ids)
        full = self._lengths[slot] == self._backend.context_length
        if sequence.finish_reason is None and full and not self._slides:
            sequence.finish_reason = "length"
        if sequence.finish_reason is not None:
            self._release(slot)

    def _release(self, slot: int) -> None:
        del self._sequences[slot], self._lengths[slot]
