"""Request bodies: OpenAI's, with the samplers of Atlas added."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from atlas.inference.sampling import Sampling

MAX_ALTERNATIVES = 20
DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
DEFAULT_CHAT_TOKENS = 256
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1)]
Alternatives = Annotated[int, Field(ge=0, le=MAX_ALTERNATIVES)]
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
    max_tokens: Count | None = Field(None, description="Default: 16.")
    logprobs: Alternatives | None = Field(
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
    max_completion_tokens: Count | None = Field(None, description="Default: 256.")
    max_tokens: Count | None = Field(
        None, description="Older name of max_completion_tokens, which takes precedence."
    )
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None

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
