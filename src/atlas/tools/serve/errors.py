"""Error responses in OpenAI's format, which its clients turn into exceptions.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from atlas.errors import AtlasError
from atlas.tools.console import printable

RETRY_AFTER = {"Retry-After": "1"}  # seconds
ENGINE_ERRORS = {  # status and message, by code
    "busy": (429, "too many requests are waiting; try again later"),
    "timeout": (503, "no slot became free in time; try again later"),
    "stopping": (503, "the server is shutting down"),
    "engine": (500, "the model failed; see the server's log"),
}


class ErrorDetail(BaseModel):
    """One error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """Body of every error response."""

    error: ErrorDetail


class APIError(HTTPException):
    """A request that ends in an error response.

    It extends HTTPException, because FastAPI handles no other exceptions raised in a request body.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, headers)
        self.param = param
        self.code = code

    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
            self.status_code,
            "invalid_request_error" if self.status_code < 500 else "server_error",
        )
        # A client may have sent characters that UTF-8 can't encode.
        message = printable(self.detail)
        detail = ErrorDetail(message=message, type=kind, param=self.param, code=self.code)
        return ErrorResponse(error=detail).model_dump()

    def response(self) -> JSONResponse:
        """Return the HTTP response."""
        retry = RETRY_AFTER if self.status_code in (429, 503) else {}
        return JSONResponse(self.body(), self.status_code, retry | dict(self.headers or {}))


class EngineError(APIError):
    """A request that the engine can't complete, for one of ``ENGINE_ERRORS``."""

    def __init__(self, code: str) -> None:
        status, message = ENGINE_ERRORS[code]
        super().__init__(status, message, code=code)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error in OpenAI's format, without details of the server's internals."""

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if not isinstance(error, APIError):  # raised by the framework
            missing = f"{request.method} {request.url.path}: no such path"
            message = missing if error.status_code == 404 else str(error.detail)
            error = APIError(error.status_code, message, headers=error.headers)
        return error.response()

    @app.exception_handler(AtlasError)
    async def unsupported(_: Request, error: AtlasError) -> JSONResponse:
        return APIError(400, str(error)).response()

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        _, *keys = first["loc"]  # after "body"
        path = ".".join(map(str, keys))
        param = printable(str(keys[0])) if keys else None
        if first["type"] == "json_invalid":
            message, param = "the request body is not valid JSON", None
        elif param is None:
            message = "the request body must be a JSON object; set Content-Type: application/json"
        elif first["type"] == "extra_forbidden":
            message = f"{path}: unknown field"
        elif param == "prompt":
            message = "prompt: must be a string, a list of strings, token ids, or lists of them"
        else:
            message = f"{path}: {first['msg']}"
        return APIError(400, message, param=param).response()
