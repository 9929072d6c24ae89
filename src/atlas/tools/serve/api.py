"""The paths of OpenAI's API, and those that the page asks beside them."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from atlas.inference.batch import Text, visible
from atlas.tools.serve.answer import Answer, Part, unless_gone
from atlas.tools.serve.engine import EngineFailed, Stopping, WaitedTooLong
from atlas.tools.serve.errors import ErrorResponse, RequestError, error_body, of_failure
from atlas.tools.serve.requests import Asked, AttentionRequest, ChatRequest, CompletionRequest
from atlas.tools.serve.responses import Chat, Completions, Envelope, Form
from atlas.tools.serve.served import Served

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 404, 408, 413, 429, 500, 503)
}
STREAM = "text/event-stream"
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {STREAM: {}}}}
END = b"data: [DONE]\n\n"


def routes(served: Served) -> APIRouter:
    """All paths that ask something of a model."""
    api = APIRouter(responses=ERRORS)

    @api.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        if not served.engine.works:
            raise EngineFailed
        return {"status": "ok"}

    api.head("/health", include_in_schema=False)(health)

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(served.metrics.page(), media_type="text/plain; version=0.0.4")

    @api.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [_model(served)]}

    @api.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """The one model, by its name."""
        if name != served.opened.name:
            raise RequestError(404, f"model {name!r}: not here", code="model_not_found")
        return _model(served)

    @api.post("/v1/completions", responses=STREAMED)
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        """Continues prompts."""
        texts = served.completion_texts(asked)
        return await respond(served, asked, texts, Completions(), request)

    @api.post("/v1/chat/completions", responses=STREAMED)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """Says what comes next in a conversation."""
        texts = served.chat_texts(asked)
        return await respond(served, asked, texts, Chat(), request)

    one_at_a_time = asyncio.Semaphore(1)

    @api.post("/atlas/attention")
    async def attention(asked: AttentionRequest) -> dict[str, Any]:
        """How each layer and head looks back from the last of some ids."""
        count = visible(len(asked.ids), served.opened.context_length)
        seen = asked.ids[-count:]
        served.check_ids(seen, "ids")
        async with one_at_a_time:  # beside what the engine computes
            layers = await asyncio.to_thread(served.opened.attention, seen)
        return {"tokens": [served.piece(each) for each in seen], "layers": layers}

    return api


async def respond(
    served: Served, asked: Asked, texts: Sequence[Text], form: Form, request: Request
) -> Response:
    """The answer to a request for texts, whole or as a stream.

    Raises:
        RequestError: the client hung up.
        Busy: too many texts are waiting.
        WaitedTooLong: no slot became free in time.
        EngineFailed: the model failed.
    """
    answer = Answer(served, texts, asked.stops(), streamed=bool(asked.stream))
    envelope = Envelope(served, answer, form, with_ids=asked.return_token_ids)
    if not asked.stream:
        try:
            parts = await unless_gone(request, _all(answer))
        finally:
            answer.abandon()
        return Response(orjson.dumps(envelope.whole(parts)), media_type="application/json")
    parts_to_come = answer.parts()
    try:  # what goes wrong before the first part has a status of its own
        first = await unless_gone(request, _first(parts_to_come))
    except BaseException:
        answer.abandon()
        raise
    chunks = _chunks(envelope, first, parts_to_come, asked)
    return Stream(answer, chunks, media_type=STREAM, headers={"Cache-Control": "no-cache"})


class Stream(StreamingResponse):
    """An answer in parts; however it ends, also before its first one, what grows is given up."""

    def __init__(self, answer: Answer, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._answer.abandon()


async def _first(parts: AsyncIterator[list[Part]]) -> list[Part]:
    return await anext(parts)


async def _all(answer: Answer) -> list[Part]:
    return [part async for parts in answer.parts() for part in parts]


async def _chunks(
    envelope: Envelope,
    first: list[Part],
    rest: AsyncIterator[list[Part]],
    asked: Asked,
) -> AsyncIterator[bytes]:
    with_usage = asked.stream_options is not None and asked.stream_options.include_usage
    try:
        yield _events(envelope, first, with_usage=with_usage)
        async for parts in rest:
            yield _events(envelope, parts, with_usage=with_usage)
        if with_usage:
            yield _event(envelope.last_chunk())
    except (WaitedTooLong, EngineFailed, Stopping) as failure:
        error = of_failure(failure)
        yield _event(error_body(error.status, str(error), code=error.code))
    yield END


def _events(envelope: Envelope, parts: list[Part], *, with_usage: bool) -> bytes:
    return b"".join(_event(envelope.chunk(part, with_usage=with_usage)) for part in parts)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def _model(served: Served) -> dict[str, Any]:
    return {
        "id": served.opened.name,
        "object": "model",
        "created": served.started,
        "owned_by": "atlas",
        "max_model_len": served.opened.context_length,
    }
