"""A model that is being served: requests to texts, checked against it and the limits."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from atlas.inference.backends.loaded_model import OpenedModel
from atlas.inference.batch import Text
from atlas.tools.serve.engine import Engine
from atlas.tools.serve.errors import RequestError
from atlas.tools.serve.limits import Limits
from atlas.tools.serve.metrics import Metrics
from atlas.tools.serve.requests import Asked, ChatRequest, CompletionRequest

COMPLETION_TOKENS = 16  # OpenAI's default
CHAT_TOKENS = 256
SEEDS = 2**64
ID_DIGITS = 10


@dataclass(frozen=True)
class Served:
    """A model with all that answers need.

    Attributes:
        opened: the model.
        engine: that runs it.
        limits: of requests.
        metrics: that are counted.
        started: when, in seconds of the epoch.
        pieces: the texts of ids that were asked for.
    """

    opened: OpenedModel
    engine: Engine
    limits: Limits
    metrics: Metrics
    started: int
    pieces: dict[int, str] = field(default_factory=dict)

    def completion_texts(self, asked: CompletionRequest) -> list[Text]:
        """The texts of a request, ``n`` for each prompt.

        Raises:
            RequestError: it asks for what there is not, or too much.
            AtlasError: a prompt is none for this model.
        """
        given, tokens = _prompts(asked), asked.max_tokens or COMPLETION_TOKENS
        self._check(asked, len(given), tokens)
        prompts = [self._prompt(prompt) for prompt in given]
        return self._texts(asked, prompts, tokens, asked.logprobs)

    def chat_texts(self, asked: ChatRequest) -> list[Text]:
        """The texts of a conversation, ``n`` of them.

        Raises:
            RequestError: as ``completion_texts``.
            AtlasError: it can't be continued by this model.
        """
        tokens = asked.max_completion_tokens or asked.max_tokens or CHAT_TOKENS
        self._check(asked, 1, tokens)
        if asked.top_logprobs is not None and not asked.logprobs:
            raise RequestError(400, "top_logprobs needs logprobs", param="top_logprobs")
        ids = self.opened.conversation([message.plain() for message in asked.messages])
        self._check_length(ids, "messages")
        alternatives = (asked.top_logprobs or 0) if asked.logprobs else None
        return self._texts(asked, [ids], tokens, alternatives)

    def piece(self, identity: int) -> str:
        """The text of one id, for people."""
        if identity not in self.pieces:
            self.pieces[identity] = self.opened.piece(identity)
        return self.pieces[identity]

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Refuses what the model can't read.

        Raises:
            RequestError: an id is not of the vocabulary, or there are too many.
        """
        if max(ids) >= self.opened.vocab_size:
            last = self.opened.vocab_size - 1
            raise RequestError(400, f"{param}: {max(ids)} is no id: 0 to {last}", param=param)
        self._check_length(ids, param)

    def _texts(
        self, asked: Asked, prompts: Sequence[list[int]], tokens: int, alternatives: int | None
    ) -> list[Text]:
        first = secrets.randbits(32) if asked.seed is None else asked.seed
        return [
            Text(prompt, tokens, asked.sampling((first + copy) % SEEDS), alternatives)
            for prompt in prompts
            for copy in range(asked.n or 1)
        ]

    def _check(self, asked: Asked, prompts: int, tokens: int) -> None:
        """Refuses what does not depend on the words of a prompt."""
        limits, stops, texts = self.limits, asked.stops(), prompts * (asked.n or 1)
        if asked.model != self.opened.name:
            raise RequestError(
                404,
                f"model {asked.model!r}: not here; this server has {self.opened.name!r}",
                param="model",
                code="model_not_found",
            )
        longest, most = limits.stop_characters, min(limits.texts, limits.slots + limits.queue)
        ids = [key for key in asked.logit_bias or () if not self._is_id(key)]
        for param, wrong, message in (
            ("max_tokens", tokens > limits.tokens, f"{tokens}: at most {limits.tokens}"),
            ("n", texts > most, f"{texts} texts: a request may ask for {most}"),
            ("stop", len(stops) > limits.stops, f"{len(stops)} strings: at most {limits.stops}"),
            (
                "stop",
                any(not 0 < len(stop) <= longest for stop in stops),
                f"1 to {longest} characters",
            ),
            ("logit_bias", bool(ids), f"{ids[:1]} is no id of this model"),
        ):
            if wrong:
                raise RequestError(400, f"{param}: {message}", param=param)

    def _is_id(self, key: str) -> bool:
        sound = key.isascii() and key.isdecimal() and len(key) <= ID_DIGITS
        return sound and int(key) < self.opened.vocab_size

    def _prompt(self, prompt: str | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            ids = self.opened.encode(prompt)
            self._check_length(ids, "prompt")
            return ids
        self.check_ids(prompt, "prompt")
        return list(prompt)

    def _check_length(self, ids: Sequence[int], param: str) -> None:
        if len(ids) > self.opened.context_length:
            raise RequestError(
                400,
                f"{param}: {len(ids)} tokens, and this model sees {self.opened.context_length}",
                param=param,
                code="context_length_exceeded",
            )


def _prompts(asked: CompletionRequest) -> list[str | list[int]]:
    """The prompts of a request, whose own may be one or a list of them."""
    if isinstance(asked.prompt, str):
        return [asked.prompt]
    ids = [each for each in asked.prompt if isinstance(each, int)]
    return [ids] if ids else [each for each in asked.prompt if not isinstance(each, int)]
