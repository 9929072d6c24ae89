"""``atlas serve``: the ASGI app of one model, and the server that runs it."""

import ipaddress
import logging
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import Overflow
from atlas.tools.serve.api import create_router
from atlas.tools.serve.engine import Engine, Limits
from atlas.tools.serve.errors import add_error_handlers
from atlas.tools.serve.guard import Guard
from atlas.tools.serve.metrics import create_metrics
from atlas.tools.serve.service import ModelService

PAGE = Path(__file__).parent / "page"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
KEEP_ALIVE_SECONDS = 30
SHUTDOWN_SECONDS = 3  # for responses that are being sent
REVALIDATE = {"Cache-Control": "no-cache"}  # so that an upgrade shows
SECURITY_POLICY = {  # the page loads nothing from elsewhere, and no other page may frame it
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}
logger = logging.getLogger(__name__)


def serve(
    model: LoadedModel,
    host: str,
    port: int,
    limits: Limits,
    *,
    key: str | None,
    metrics_folder: Path | None,
    on_overflow: Overflow,
) -> None:
    """Serve a model until the process is stopped."""
    listener = _listen(host, port)
    is_local = _is_loopback(host)
    hosts = [*LOCAL_HOSTS, host] if is_local else None
    try:
        app = create_app(
            model,
            limits,
            key=key,
            hosts=hosts,
            metrics_folder=metrics_folder,
            on_overflow=on_overflow,
        )
    except (RuntimeError, MemoryError) as error:
        raise AtlasError(
            f"--slots {limits.slots}: not enough memory; use fewer ({one_line(error)[:80]})"
        ) from None
    url_host = f"[{host}]" if ":" in host else host
    address = f"http://{url_host}:{listener.getsockname()[1]}"
    if not is_local and key is None:
        logger.warning("anyone who can reach this address can use the model; set a key with --key")
    print(f"{model.name} ({model.engine}): page at {address}, API at {address}/v1", flush=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    Server(config, app.state.engine).run(sockets=[listener])


class Server(uvicorn.Server):
    """Stop the engine before the connections, so that every client gets the end of its response."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the responses, then the connections."""
        self._engine.stop()
        await super().shutdown(sockets)


def create_app(
    model: LoadedModel,
    limits: Limits,
    *,
    key: str | None = None,
    hosts: list[str] | None = None,
    metrics_folder: Path | None = None,
    on_overflow: Overflow = "slide",
) -> FastAPI:
    """Create the app that serves a model; see ``Guard`` and ``ModelService`` for the options."""
    metrics = create_metrics()
    engine = Engine(model.batch(limits.slots, on_overflow), limits, metrics)
    service = ModelService(model, engine, limits, metrics, int(time.time()), metrics_folder)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with suppress(AtlasError):  # a model that reads nothing but questions
            engine.warm_up(model.encode("a"))
        engine.start()
        try:
            yield
        finally:
            engine.stop()

    app = FastAPI(
        title="Atlas",
        description="A small language model with an OpenAI-compatible API.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.state.engine = engine
    add_error_handlers(app)
    app.include_router(create_router(service))

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=REVALIDATE | SECURITY_POLICY)

    app.mount("/page", PageFiles(directory=PAGE))
    schema = app.openapi()
    for name in ("CompletionRequest", "ChatRequest"):
        schema["components"]["schemas"][name]["properties"]["model"]["enum"] = [model.name]
    paths = [*schema["paths"], "/"]
    app.add_middleware(Guard, limits=limits, metrics=metrics, key=key, hosts=hosts, paths=paths)
    return app


class PageFiles(StaticFiles):
    """The page's files; browsers revalidate them at each load."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file, or the status 304 if it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(REVALIDATE)
        return response


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    if not host:
        raise AtlasError("--host is empty; use 127.0.0.1, or 0.0.0.0 to accept other machines")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise AtlasError(
            f"--host {host} --port {port}: address not available ({error}); try another --port"
        ) from None
