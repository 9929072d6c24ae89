"""Errors in the form of OpenAI's API, which its clients turn into exceptions.

{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}
"""

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from atlas.errors import AtlasError
from atlas.tools.console import printable
from atlas.tools.serve.engine import Busy, EngineFailed, Stopping, WaitedTooLong

COME_AGAIN = {"Retry-After": "1"}  # seconds


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorResponse(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorDetail


class RequestError(Exception):
    """A request that can't be answered."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


def error_body(
    status: int, message: str, *, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """The body of an error."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    # What a client sent may be of characters that can't be sent back.
    detail = ErrorDetail(message=printable(message), type=kind, param=param, code=code)
    return ErrorResponse(error=detail).model_dump()


def error_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """An answer that is an error."""
    return JSONResponse(error_body(status, message, param=param, code=code), status, headers)


def of_failure(error: Exception) -> RequestError:
    """What a client is told where the engine did not answer."""
    match error:
        case Busy():
            return RequestError(429, "too many requests are waiting; try again", code="busy")
        case WaitedTooLong():
            return RequestError(503, "no slot became free in time; try again", code="timeout")
        case Stopping():
            return RequestError(503, "the server is being stopped", code="stopping")
        case EngineFailed():
            return RequestError(500, "the model failed; the server's log says how", code="engine")
    raise error


def answer_errors(app: FastAPI) -> None:
    """Has all errors of an app answered in one form, which tells nothing of the server inside."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> JSONResponse:
        headers = COME_AGAIN if error.status in (429, 503) else None
        return error_response(
            error.status, str(error), param=error.param, code=error.code, headers=headers
        )

    @app.exception_handler(Busy)
    @app.exception_handler(WaitedTooLong)
    @app.exception_handler(EngineFailed)
    @app.exception_handler(Stopping)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return await refused(request, of_failure(error))

    @app.exception_handler(AtlasError)
    async def not_for_this_model(_: Request, error: AtlasError) -> JSONResponse:
        return error_response(400, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return error_response(400, "the body is not JSON")
        _, *where = first["loc"]
        if not where:
            message = "the body is no JSON object; send one, with Content-Type: application/json"
            return error_response(400, message)
        param, path = printable(str(where[0])), ".".join(map(str, where))
        message = f"{path}: {first['msg']}"
        if first["type"] == "extra_forbidden":
            message = f"{path}: is not known"
        elif param == "prompt":
            message = "prompt: give a text, a list of texts, ids, or a list of lists of ids"
        return error_response(400, message, param=param)

    @app.exception_handler(HTTPException)
    async def by_the_framework(request: Request, error: HTTPException) -> JSONResponse:
        message = str(error.detail)
        if error.status_code == 404:
            message = f"{request.method} {request.url.path}: there is no such path"
        headers = dict(error.headers) if error.headers else None
        return error_response(error.status_code, message, headers=headers)
