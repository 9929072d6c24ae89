"""Routes of OpenAI's API and of the web page."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from atlas.inference.batch import visible_tokens
from atlas.tools.serve.completions import Completions, ModelService
from atlas.tools.serve.errors import APIError, EngineError, ErrorResponse
from atlas.tools.serve.schemas import AttentionRequest, ChatRequest, CompletionRequest

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 404, 408, 413, 429, 500, 501, 503)
}
EVENT_STREAM = "text/event-stream"
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {EVENT_STREAM: {}}}}
CLIENT_CLOSED_REQUEST = 499  # nginx's code; only the metrics see it
DESCRIBED = ("name", "engine", "context_length", "vocab_size", "has_attention")  # of a model
MAX_CURVE_POINTS = 500
CURVES = {  # of the page: file and column
    "train": ("train.csv", "loss"),
    "train_average": ("train.csv", "loss_average"),
    "val": ("val.csv", "loss"),
}
T = TypeVar("T")


def create_router(service: ModelService) -> APIRouter:
    """Create all routes that need the model."""
    api = APIRouter(responses=ERRORS)
    model = service.model
    model_object = {
        "id": model.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "atlas",
        "max_model_len": model.context_length,
    }

    @api.get("/health")
    async def health() -> dict[str, str]:
        """Check that the engine runs."""
        if not service.engine.is_alive:
            raise EngineError("engine")
        return {"status": "ok"}

    api.head("/health", include_in_schema=False)(health)

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return metrics for Prometheus."""
        if service.metrics is None:
            message = "metrics need prometheus-client: pip install 'atlas[metrics]'"
            raise APIError(501, message)
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")

    @api.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """List the one model."""
        return {"object": "list", "data": [model_object]}

    @api.get("/v1/models/{name:path}")
    async def get_model(name: str) -> dict[str, Any]:
        """Describe the model by name."""
        if name != model.name:
            raise service.unknown_model(name)
        return model_object

    @api.post("/v1/completions", responses=STREAMED)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue prompts."""
        return await respond(service, body, request)

    @api.post("/v1/chat/completions", responses=STREAMED)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Continue a conversation."""
        return await respond(service, body, request)

    @api.get("/atlas/model")
    def describe() -> dict[str, Any]:
        """Describe the model and its training run for the page."""
        return {
            **{name: getattr(model, name) for name in DESCRIBED},
            "max_tokens": service.options.max_tokens,
            "curves": load_curves(service.options.metrics_folder),
        }

    one_at_a_time = asyncio.Semaphore(1)

    @api.post("/atlas/attention")
    async def attention(body: AttentionRequest) -> dict[str, Any]:
        """Return the attention weights of the last token, by layer, head and position."""
        ids = body.ids[-visible_tokens(len(body.ids), model.context_length) :]
        service.check_ids(ids, "ids")
        async with one_at_a_time:  # it competes with the engine for the processor
            layers = await asyncio.to_thread(model.attention, ids)
        return {"tokens": [model.piece(each) for each in ids], "layers": layers}

    return api


async def respond(
    service: ModelService, body: CompletionRequest | ChatRequest, request: Request
) -> Response:
    """Generate completions, in one response or as a stream of chunks."""
    completions = Completions(service, body)
    try:
        if not body.stream:
            content = await _unless_disconnected(request, completions.response())
            return Response(orjson.dumps(content), media_type="application/json")
        events = completions.events()
        # An error before the first event still gets a status of its own.
        first = await _unless_disconnected(request, anext(events))
    except BaseException:
        completions.cancel()
        raise
    return EventStream(completions, first, events)


class EventStream(StreamingResponse):
    """A stream of events that frees its slots whenever it ends, even before the first event."""

    def __init__(self, completions: Completions, first: bytes, rest: AsyncIterator[bytes]) -> None:
        async def events() -> AsyncIterator[bytes]:
            yield first
            async for event in rest:
                yield event

        super().__init__(events(), media_type=EVENT_STREAM, headers={"Cache-Control": "no-cache"})
        self._completions = completions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._completions.cancel()


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Await some work, but stop when the client disconnects."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise APIError(CLIENT_CLOSED_REQUEST, "the client disconnected")
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def load_curves(folder: Path | None) -> dict[str, list[list[float]]]:
    """Read the [step, loss] points of a training run, at most ``MAX_CURVE_POINTS`` a curve."""
    from atlas.tools.report.results import curve_values, parse_table  # slow: it needs pandas

    curves: dict[str, list[list[float]]] = {}
    for name, (file, column) in CURVES.items():
        if folder and (path := folder / file).is_file():
            table, _ = parse_table(path.read_bytes())
            values = curve_values(table, column)
            stride = -(-len(values) // MAX_CURVE_POINTS) or 1
            curves[name] = values[::stride].reset_index().to_numpy().tolist()
    return {name: points for name, points in curves.items() if points}
