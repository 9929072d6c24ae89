"""What clients may ask for: OpenAI's requests, with the samplers of Atlas beside theirs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from atlas.inference.sampling import Sampling

MOST_ALTERNATIVES = 20
Ids = Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]


class StreamOptions(BaseModel):
    """What a stream has beside the text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = Field(False, description="A last chunk with the number of tokens.")
    include_obfuscation: bool = Field(False, description="Accepted, and changes nothing.")


class Asked(BaseModel):
    """What requests for a text have in common; what changes nothing is accepted."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str = Field(description="The name that /v1/models has.")
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(ge=0.1, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool = Field(False, description="Ids beside the text, as vLLM has them.")
    user: str | None = Field(None, description="Accepted, and changes nothing.")
    metadata: dict[str, Any] | None = Field(None, description="Accepted, and changes nothing.")
    store: Literal[False] | None = Field(None, description="Nothing is stored.")

    def sampling(self, seed: int) -> Sampling:
        """How tokens are picked; without a word of it, from the model's own probabilities."""
        plain = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "seed": seed}
        given = {name: getattr(self, name) for name in Sampling.model_fields if name != "seed"}
        return Sampling.model_validate(
            plain | {name: value for name, value in given.items() if value is not None}
        )

    def stops(self) -> list[str]:
        """The strings before which a text ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class CompletionRequest(Asked):
    """``POST /v1/completions``."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1)]
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="16 if not given.")
    logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = Field(
        None, description="How many alternatives of each token to tell, with probabilities."
    )
    echo: Literal[False] | None = None
    best_of: Literal[1] | None = None
    suffix: Literal[""] | None = None


class Part(BaseModel):
    """A part of a message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    name: str | None = None
    refusal: None = None

    def plain(self) -> dict[str, str]:
        """As templates take it."""
        parts = self.content or ""
        text = parts if isinstance(parts, str) else "".join(part.text for part in parts)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Asked):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="256 if not given."
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Its older name, which gives way to it."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_ALTERNATIVES)] | None = None


class AttentionRequest(BaseModel):
    """``POST /atlas/attention``."""

    model_config = ConfigDict(extra="forbid")

    ids: Ids
