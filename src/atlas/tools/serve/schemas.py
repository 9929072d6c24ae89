"""Request and response bodies: OpenAI's, with the samplers of Atlas added to the requests."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field

from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import Token
from atlas.inference.sampling import Sampling

MAX_ALTERNATIVES = 20
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
DEFAULT_CHAT_TOKENS = 256
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]
Body = dict[str, Any]


class StrictModel(BaseModel):
    """A request or a part of one, without unknown fields."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StreamOptions(StrictModel):
    """Options of a streamed response."""

    include_usage: bool = Field(False, description="End with a chunk of token counts.")
    include_obfuscation: bool = Field(False, description="Accepted and ignored.")


class BaseRequest(StrictModel):
    """Fields of both kinds of completions."""

    model: str = Field(description="A name from /v1/models.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[TokenId, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool = Field(False, description="Return token ids too, as vLLM does.")
    user: str | None = Field(None, description="Accepted and ignored.")
    metadata: dict[str, Any] | None = Field(None, description="Accepted and ignored.")
    store: Literal[False] | None = Field(None, description="Nothing is stored.")

    def sampling(self, seed: int) -> Sampling:
        """Return the sampling options; the default is to sample from the model's distribution."""
        defaults = {"temperature": 1.0, "top_p": 1.0, "top_k": 0}
        fields = set(Sampling.model_fields) - {"seed"}
        options = self.model_dump(include=fields, exclude_none=True)
        return Sampling.model_validate(defaults | options | {"seed": seed})

    def stop_strings(self) -> list[str]:
        """Return the stop strings as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class CompletionRequest(BaseRequest):
    """``POST /v1/completions``."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1)]
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="Default: 16.")
    logprobs: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] | None = Field(
        None, description="Return the log-probability of each token and of this many alternatives."
    )
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None

    def prompts(self) -> list[str | list[int]]:
        """Return the prompts as a list; one prompt may be a string or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [item for item in self.prompt if isinstance(item, int)]
        return [ids] if ids else [item for item in self.prompt if not isinstance(item, int)]

    @property
    def token_limit(self) -> int:
        """Max tokens of one completion."""
        return self.max_tokens or DEFAULT_COMPLETION_TOKENS

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives to score; None to score nothing."""
        return self.logprobs


class ContentPart(StrictModel):
    """One text of a message."""

    type: Literal["text"]
    text: str


class ChatMessage(StrictModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: None = None

    def for_template(self) -> dict[str, str]:
        """Return the message in the form that chat templates read."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class ChatRequest(BaseRequest):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Default: 256."
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Older name of max_completion_tokens, which takes precedence."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)] | None = None

    @property
    def token_limit(self) -> int:
        """Max tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens or DEFAULT_CHAT_TOKENS

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives to score; None to score nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None


class AttentionRequest(StrictModel):
    """``POST /atlas/attention``."""

    ids: TokenIds


@dataclass(frozen=True)
class Delta:
    """The new text of one sequence after one step."""

    index: int  # of the sequence
    token: Token | None  # None if the sequence ended without a new token
    offset: int  # characters of the sequence before the text
    text: str  # complete characters; empty while they may be part of a stop string
    finish_reason: str | None  # "stop" or "length"; None while the sequence runs


class ResponseBuilder:
    """Build the response bodies of one request from the deltas of its sequences."""

    def __init__(
        self,
        model: LoadedModel,
        request: CompletionRequest | ChatRequest,
        prompts: Sequence[Sequence[int]],
    ) -> None:
        self._chat = chat = isinstance(request, ChatRequest)
        self._return_token_ids = request.return_token_ids
        self._prompts = prompts  # ids, of each sequence
        self._piece = functools.cache(model.piece)
        self._piece_bytes = model.piece_bytes
        self._header = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{uuid4().hex}",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": None,
        }
        self._started: set[int] = set()

    def response(self, deltas: Sequence[Delta], usage: Body) -> Body:
        """Return the complete response."""
        by_index: dict[int, list[Delta]] = {}
        for delta in deltas:
            by_index.setdefault(delta.index, []).append(delta)
        choices = [self._choice(found, "message") for _, found in sorted(by_index.items())]
        kind = "chat.completion" if self._chat else "text_completion"
        return self._header | {"object": kind, "choices": choices, "usage": usage}

    def chunk(self, delta: Delta) -> Body:
        """Return one chunk of a stream."""
        return self._chunk([self._choice([delta], "delta")])

    def usage_chunk(self, usage: Body) -> Body:
        """Return the chunk with the token usage, which ends a stream that reports it."""
        return self._chunk([]) | {"usage": usage}

    def _chunk(self, choices: list[Body]) -> Body:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return self._header | {"object": kind, "choices": choices}

    def _choice(self, deltas: Sequence[Delta], key: Literal["message", "delta"]) -> Body:
        index = deltas[0].index
        first = index not in self._started
        self._started.add(index)
        text = "".join(delta.text for delta in deltas)
        scored = [delta for delta in deltas if delta.token and delta.token.logprob is not None]
        choice: Body = {"index": index, "finish_reason": deltas[-1].finish_reason}
        if self._chat:
            role = {"role": "assistant"} if first else {}
            refusal = {"refusal": None} if key == "message" else {}
            choice[key] = role | {"content": text} | refusal
            choice["logprobs"] = self._chat_logprobs(scored) if scored else None
        else:
            choice["text"] = text
            choice["logprobs"] = self._logprobs(scored) if scored else None
        if self._return_token_ids:
            choice["token_ids"] = [delta.token.id for delta in deltas if delta.token]
            if first:
                choice["prompt_token_ids"] = list(self._prompts[index])
        return choice

    def _logprobs(self, deltas: Sequence[Delta]) -> Body:
        tokens = [delta.token for delta in deltas if delta.token]
        return {
            "tokens": [self._piece(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                {self._piece(each): logprob for each, logprob in token.top_logprobs}
                for token in tokens
            ],
            "text_offset": [delta.offset for delta in deltas],
        }

    def _chat_logprobs(self, deltas: Sequence[Delta]) -> Body:
        content = [
            self._scored_token(token.id, token.logprob)
            | {"top_logprobs": [self._scored_token(*each) for each in token.top_logprobs]}
            for delta in deltas
            if (token := delta.token)
        ]
        return {"content": content, "refusal": None}

    def _scored_token(self, token_id: int, logprob: float | None) -> Body:
        data = self._piece_bytes(token_id)
        return {
            "token": self._piece(token_id),
            "logprob": logprob,
            "bytes": None if data is None else list(data),
        }
