"""Bodies of requests and of error responses: OpenAI's, plus Atlas's sampling options."""

from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from atlas.errors import AtlasError
from atlas.inference.sampling import Sampling
from atlas.tools.console import printable

T = TypeVar("T")
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=1)]
Alternatives = Annotated[int, Field(ge=0, le=20)]
NonEmpty = Annotated[list[T], Field(min_length=1)]
Body = dict[str, Any]
HEADERS = {  # of error responses, by status
    401: {"WWW-Authenticate": "Bearer"},
    413: {"Connection": "close"},  # the rest of the body is not read
    429: {"Retry-After": "1"},  # seconds
    503: {"Retry-After": "1"},
}
ENGINE_ERRORS = {  # status and message, by code
    "busy": (429, "too many requests are waiting; try again later"),
    "timeout": (503, "no slot became free in time; try again later"),
    "stopping": (503, "the server is shutting down"),
    "engine": (500, "the model failed; see the server's log"),
}


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
    return_sampling_probs: bool = Field(
        False, description="With logprobs: return the probabilities after all sampling options."
    )
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

    prompt: str | NonEmpty[str] | NonEmpty[TokenId] | NonEmpty[NonEmpty[TokenId]]
    max_tokens: Count | None = Field(None, description="Default: 16, as in OpenAI's API.")
    logprobs: Alternatives | None = Field(None, description="Alternatives to score per token.")
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
        return self.max_tokens or 16

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

    messages: NonEmpty[ChatMessage]
    max_completion_tokens: Count | None = Field(None, description="Default: 256.")
    max_tokens: Count | None = Field(None, description="Older name of max_completion_tokens.")
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None

    @property
    def token_limit(self) -> int:
        """Max tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens or 256

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives to score; None to score nothing."""
        return (self.top_logprobs or 0) if self.logprobs else None


class AttentionRequest(StrictModel):
    """``POST /atlas/attention``."""

    ids: NonEmpty[TokenId]


class ErrorDetail(BaseModel):
    """One error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """Body of every error response, which OpenAI's clients turn into exceptions."""

    error: ErrorDetail


class APIError(HTTPException):
    """A request that ends in an error response.

    It extends HTTPException, because FastAPI hides any other error raised while it reads a body.
    """

    def __init__(self, status: int, message: str, param: str = "", code: str = "") -> None:
        super().__init__(status, message, HEADERS.get(status))
        self.param, self.code = param or None, code or None

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        usual = "invalid_request_error" if self.status_code < 500 else "server_error"
        special = {401: "authentication_error", 429: "rate_limit_error"}
        kind = special.get(self.status_code, usual)
        message = printable(self.detail)  # clients may send characters that UTF-8 can't encode
        detail = ErrorDetail(message=message, type=kind, param=self.param, code=self.code)
        return ErrorResponse(error=detail).model_dump()

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        return JSONResponse(self.body(), self.status_code, self.headers)


class EngineError(APIError):
    """A request that the engine can't complete, for one of ``ENGINE_ERRORS``."""

    def __init__(self, code: str) -> None:
        status, message = ENGINE_ERRORS[code]
        super().__init__(status, message, code=code)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in OpenAI's format, without details of the server's internals."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, APIError):
            return error.response()
        missing = f"{request.method} {request.url.path}: no such path"  # raised by the framework
        message = missing if error.status_code == 404 else str(error.detail)
        response = APIError(error.status_code, message).response()
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(AtlasError)
    async def unsupported(_: Request, error: AtlasError) -> JSONResponse:
        return APIError(400, str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        _, *keys = first["loc"]  # after "body"
        path = ".".join(map(str, keys))
        param = printable(str(keys[0])) if keys else ""
        if first["type"] == "json_invalid":
            message, param = "the request body is not valid JSON", ""
        elif not keys:
            message = "the request body must be a JSON object; set Content-Type: application/json"
        elif first["type"] == "extra_forbidden":
            message = f"{path}: unknown field"
        elif param == "prompt":
            message = "prompt: must be a string, a list of strings, token ids, or lists of them"
        else:
            message = f"{path}: {first['msg']}"
        return APIError(400, message, param=param).response()
