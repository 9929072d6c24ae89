"""Bodies of requests and of error responses: OpenAI's, plus Atlas's sampling options."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError
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
    408: {"Connection": "close"},  # the rest of the body is not read
    413: {"Connection": "close"},
    429: {"Retry-After": "1"},  # seconds
    503: {"Retry-After": "1"},
}
ENGINE_ERRORS = {  # status and message, by code
    "busy": (429, "too many requests are waiting; try again later"),
    "timeout": (503, "no slot became free in time; try again later"),
    "stopping": (503, "the server is shutting down"),
    "engine": (500, "the model failed; see the server's log"),
}
UNKNOWN, UNSUPPORTED = "unknown_parameter", "unsupported_value"  # OpenAI's codes
MAX_NAME = 60  # characters of an unknown field in an error
NO_EFFECT = frozenset(  # fields of OpenAI and of other servers that never change an answer
    """
    metadata parallel_tool_calls prediction prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning_effort safety_identifier service_tier store user verbosity
    cache_prompt cache_salt id_slot keep_alive priority provider request_id return_progress
    session_id timings_per_token trace ttl usage
    dry_allowed_length dry_base dry_penalty_last_n dynatemp_exponent mirostat_eta mirostat_tau
    repeat_last_n xtc_threshold
    """.split()  # noqa: SIM905
)
SAME_ANYWAY: Mapping[str, Any] = {  # what this server does, by the field that asks for it
    "add_generation_prompt": True,
    "add_special_tokens": True,
    "dry_multiplier": 0,
    "dynatemp_range": 0,
    "length_penalty": 1,
    "min_keep": 0,
    "min_tokens": 0,
    "mirostat": 0,
    "n_probs": 0,
    "repeat_penalty": 1,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
    "tfs_z": 1,
    "top_a": 0,
    "typical_p": 1,
    "xtc_probability": 0,
}


class StrictModel(BaseModel):
    """A request or a part of one. Null is as good as no value, and unknown fields are errors.

    Accepted are unknown fields that ask for nothing (false, "", [] or {}) or for what this server
    does anyway, and those that never change an answer.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    ignores_unknown: ClassVar[bool] = False  # unless they look like a typo

    @model_validator(mode="before")
    @classmethod
    def keep_known(cls, data: Any) -> Any:
        """Leave out null values and fields that mean nothing here."""
        if not isinstance(data, dict):
            return data
        fields = {name: value for name, value in data.items() if value is not None}
        for name, value in fields.items():
            if name not in cls.model_fields and not _means_nothing(name, value):
                similar = get_close_matches(
                    name[:MAX_NAME].lower(), cls.model_fields, 1, cutoff=0.75
                )
                if similar or not cls.ignores_unknown:
                    hint = f"; did you mean {similar[0]}?" if similar else ""
                    shown = {"name": printable(name[:MAX_NAME]), "hint": hint}
                    raise PydanticCustomError(UNKNOWN, "unknown field{hint}", shown)
        return {name: value for name, value in fields.items() if name in cls.model_fields}


def _means_nothing(name: str, value: Any) -> bool:
    if name in SAME_ANYWAY:
        return bool(value == SAME_ANYWAY[name])
    return name in NO_EFFECT or _is_empty(value)


def _is_empty(value: Any) -> bool:
    return value is False or value in ("", [], {})


def only(*same: Any, because: str, empty: bool = True) -> AfterValidator:
    """Accept values of a field that ask for nothing or for the ``same``; reject others."""

    def check(value: Any) -> Any:
        if value is not None and value not in same and not (empty and _is_empty(value)):
            raise PydanticCustomError(UNSUPPORTED, "not supported; {why}", {"why": because})
        return value

    return AfterValidator(check)


NoTools = only("none", "auto", because="this server calls no tools")
TextOnly = only(["text"], because="this server reads and writes text only")
NoSearch = only(because="this server does not search", empty=False)  # {} asks for a search
Unconstrained = only({"type": "text"}, because="the model writes freely")


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
    tools: Annotated[Any, NoTools] = None
    tool_choice: Annotated[Any, NoTools] = None
    response_format: Annotated[Any, Unconstrained] = None

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
    echo: bool | None = Field(None, description="Return the prompt too, with its logprobs.")
    max_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Default: 16, as in OpenAI's API. 0 only with echo."
    )
    logprobs: Alternatives | None = Field(None, description="Alternatives to score per token.")
    best_of: int | None = Field(None, description="Only n: every completion is returned.")
    suffix: Annotated[Any, only(because="this server only continues prompts")] = None

    @field_validator("logprobs", mode="before")
    @classmethod
    def false_for_none(cls, value: Any) -> Any:
        """Accept false, as in a conversation."""
        return None if value is False else value

    @field_validator("max_tokens")
    @classmethod
    def at_least_one(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Reject 0 unless the prompt is returned."""
        if value == 0 and not info.data.get("echo"):
            raise PydanticCustomError("invalid_value", "0 needs echo; otherwise at least 1")
        return value

    @field_validator("best_of")
    @classmethod
    def same_as_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        """Reject a choice of the best."""
        count = info.data.get("n") or 1
        if value not in (None, count):
            problem = "{best_of} is not n ({n}); this server returns every completion"
            raise PydanticCustomError(UNSUPPORTED, problem, {"best_of": value, "n": count})
        return value

    def prompts(self) -> list[str | list[int]]:
        """Return the prompts as a list; one prompt may be a string or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [item for item in self.prompt if isinstance(item, int)]
        return [ids] if ids else [item for item in self.prompt if not isinstance(item, int)]

    @property
    def echoes(self) -> bool:
        """True to return the prompt before its completion."""
        return bool(self.echo)

    @property
    def token_limit(self) -> int:
        """Max tokens of one completion."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def alternatives(self) -> int | None:
        """Number of alternatives to score; None to score nothing."""
        return self.logprobs


class ContentPart(StrictModel):
    """One text of a message."""

    ignores_unknown = True
    type: Literal["text"]
    text: str


class ChatMessage(StrictModel):
    """One message of a conversation; what an earlier response added to it is ignored."""

    ignores_unknown = True
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = Field(None, validate_default=True)
    name: Any = Field(None, description="Accepted and ignored.")
    tool_call_id: Any = Field(None, description="Accepted and ignored.")
    tool_calls: Annotated[Any, NoTools] = None
    function_call: Annotated[Any, NoTools] = None
    refusal: Annotated[Any, only(because="put what the assistant said into content")] = None
    audio: Annotated[Any, TextOnly] = None
    images: Annotated[Any, TextOnly] = None
    prefix: Annotated[Any, only(because="the answer is a new message")] = None

    @field_validator("content", mode="before")
    @classmethod
    def is_text(cls, content: Any, info: ValidationInfo) -> Any:
        """Reject anything but text; only an assistant may have said nothing."""
        if content is None and info.data.get("role") != "assistant":
            raise PydanticCustomError("missing", "required")
        parts = content if isinstance(content, list) else []
        kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
        for kind in kinds:
            if isinstance(kind, str) and kind != "text":
                problem = "{kind} is not supported; the model reads parts of type text only"
                shown = {"kind": printable(kind[:MAX_NAME])}
                raise PydanticCustomError(UNSUPPORTED, problem, shown)
        is_valid = isinstance(content, str | list | None)
        if not is_valid or not all(kinds) or not all(isinstance(p.get("text"), str) for p in parts):
            problem = 'must be a string, or a list of {"type": "text", "text": "..."}'
            raise PydanticCustomError("invalid_type", problem)
        return content

    def for_template(self) -> dict[str, str]:
        """Return the message in the form that chat templates read."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text for part in content)
        role = {"developer": "system", "function": "tool"}.get(self.role, self.role)
        return {"role": role, "content": content}


class ChatRequest(BaseRequest):
    """``POST /v1/chat/completions``."""

    messages: NonEmpty[ChatMessage]
    max_completion_tokens: Count | None = Field(None, description="Default: 256.")
    max_tokens: Count | None = Field(None, description="Older name of max_completion_tokens.")
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None
    functions: Annotated[Any, NoTools] = None
    function_call: Annotated[Any, NoTools] = None
    modalities: Annotated[Any, TextOnly] = None
    audio: Annotated[Any, TextOnly] = None
    moderation: Annotated[Any, only(because="this server does not moderate")] = None
    web_search_options: Annotated[Any, NoSearch] = None
    echoes: ClassVar[bool] = False  # the prompt is not returned

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
        if request.url.path.startswith("/v1/"):
            missing += "; this server has /v1/models, /v1/completions and /v1/chat/completions"
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
        code = first["type"] if first["type"] in (UNKNOWN, UNSUPPORTED) else ""
        _, *keys = first["loc"]  # after "body"
        if code == UNKNOWN:
            keys.append(first["ctx"]["name"])
        path = ".".join(map(str, keys))
        param = printable(str(keys[0])) if keys else ""
        if first["type"] == "json_invalid":
            message, param = "the request body is not valid JSON", ""
        elif not keys:
            message = "the request body must be a JSON object; set Content-Type: application/json"
        elif param == "prompt":
            message = "prompt: must be a string, a list of strings, token ids, or lists of them"
        else:
            message = f"{path}: {first['msg']}"
        return APIError(400, message, param=param, code=code).response()
