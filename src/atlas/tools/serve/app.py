"""``atlas serve``: the ASGI app of one model, and the server that runs it."""

import asyncio
import hmac
import ipaddress
import logging
import re
import socket
import sys
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse, Response
from starlette.datastructures import MutableHeaders
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import GREEDY
from atlas.tools.console import printable
from atlas.tools.serve.api import ModelService, create_router
from atlas.tools.serve.connection import BURST, SECURITY_HEADERS, Connection
from atlas.tools.serve.engine import Engine, Metrics, ServerOptions
from atlas.tools.serve.schemas import APIError, add_error_handlers

PAGE = Path(__file__).parent / "page"
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
REVALIDATE = {"Cache-Control": "no-cache"}  # so that an upgrade shows
PUBLIC_PATHS, PUBLIC_FOLDER = ("/", "/health"), "/page/"  # need no key
HOST = re.compile(rb"(?:\[([0-9a-f:.]+)\]|([^\[\]:@/?#]+))(?::[0-9]*)?", re.IGNORECASE)
BEARER = re.compile(rb"\s*bearer\s+(\S(?:.*\S)?)\s*", re.IGNORECASE | re.DOTALL)
INTERNAL_ERROR = 500
OTHER_FILES = 64  # that the process may open, besides connections
SEND_BUFFER_BYTES = 1 << 17  # of a connection, in the kernel: so that slow readers are noticed
SHUTDOWN_SECONDS = 3  # for responses that are being sent
logger = logging.getLogger(__name__)


def serve(model: LoadedModel, host: str, port: int, options: ServerOptions) -> None:
    """Serve a model until the process is stopped."""
    listener = listen(host, port)
    is_local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    if is_local:
        options = replace(options, hosts=(*LOCAL_HOSTS, host))
    try:
        app = create_app(model, with_enough_connections(options))
    except (RuntimeError, MemoryError) as error:
        raise AtlasError(
            f"--slots {options.slots}: not enough memory; use fewer ({one_line(error)[:80]})"
        ) from None
    url_host = f"[{host}]" if ":" in host else host
    address = f"http://{url_host}:{listener.getsockname()[1]}"
    if not is_local and options.key is None:
        logger.warning("anyone who can reach this address can use the model; set a key with --key")
    print(f"{model.name} ({model.engine}): page at {address}, API at {address}/v1", flush=True)
    Server(app).run(sockets=[listener])


class Server(uvicorn.Server):
    """Stop the engine before the connections, so that every client gets the end of its response."""

    def __init__(self, app: FastAPI) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="error",  # not each malformed request
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._engine: Engine = app.state.engine

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down at the first signal, and without waiting for clients at the second."""
        if self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self._disconnect)
        else:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the responses, then the connections."""
        self._engine.stop()
        asyncio.get_running_loop().call_later(SHUTDOWN_SECONDS / 2, self._disconnect)
        await super().shutdown(sockets)

    def _disconnect(self) -> None:
        """Close the connections that wait for their clients."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, Connection) and connection.state != "working":
                connection.transport.abort()


def create_app(model: LoadedModel, options: ServerOptions) -> FastAPI:
    """Create the app that serves a model."""
    metrics = Metrics() if find_spec("prometheus_client") else None
    batch = model.batch(options.slots, options.on_overflow)
    engine = Engine(batch, options, metrics)
    service = ModelService(model, engine, options, metrics)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, ServerOptions]]:
        with suppress(AtlasError):  # a model that reads only questions
            list(batch.run([TokenSequence(model.encode("a"), 2, GREEDY)]))  # warm-up
        engine.start()
        try:
            yield {"options": options}  # for connections
        finally:
            engine.stop()

    about = "A small language model with an OpenAI-compatible API."
    app = FastAPI(
        title="Atlas", description=about, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.engine = engine
    add_error_handlers(app)
    app.include_router(create_router(service))

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers=REVALIDATE)

    app.mount("/page", PageFiles(directory=PAGE))
    schema = app.openapi()
    for name in ("CompletionRequest", "ChatRequest"):
        schema["components"]["schemas"][name]["properties"]["model"]["enum"] = [model.name]
    paths = [*schema["paths"], "/"]
    app.add_middleware(Guard, options=options, metrics=metrics, paths=paths)
    return app


@dataclass(frozen=True)
class Guard:
    """Middleware: checks host, key and body size, and adds headers; answers HEAD as GET.

    It also counts responses and answers internal errors.

    Plain ASGI, because Starlette's ``BaseHTTPMiddleware`` hides that a client disconnects.
    """

    app: ASGIApp
    options: ServerOptions
    metrics: Metrics | None
    paths: Collection[str]  # each has its own counts in the metrics; all others share one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status: int | None = None

        is_head = scope["method"] == "HEAD"

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(raw=message["headers"]).update(SECURITY_HEADERS)
            elif is_head:
                message = {**message, "body": b""}
            await send(message)

        try:
            refusal = self._refusal(scope)
            app = self.app if refusal is None else refusal.response()
            method = "GET" if is_head else scope["method"]
            await app({**scope, "method": method}, self._limited(receive), send_guarded)
        except Exception:
            logger.exception("%s %s failed", scope["method"], printable(scope["path"]))
            if status is not None:
                raise  # a response that has started can't be replaced
            failure = APIError(INTERNAL_ERROR, "internal server error; see the server's log")
            await failure.response()(scope, receive, send_guarded)
        finally:
            if self.metrics is not None:
                path = scope["path"] if scope["path"] in self.paths else "other"
                self.metrics.responses.labels(path, str(status or INTERNAL_ERROR)).inc()
                self.metrics.duration.labels(path).observe(time.monotonic() - started)

    def _refusal(self, scope: Scope) -> APIError | None:
        """Check host name and key.

        The host name protects against DNS rebinding: another site's page could otherwise reach
        this server through a name of its own that resolves to this machine.
        """
        if self.options.hosts is not None:
            host = HOST.fullmatch(_only_header(scope, b"host"))
            name = (host[1] or host[2]).decode("latin-1").lower() if host else ""
            if name not in self.options.hosts:
                return APIError(400, "the Host header does not name this server")
        path: str = scope["path"]
        if self.options.key is None or path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER):
            return None
        bearer = BEARER.fullmatch(_only_header(scope, b"authorization"))
        if bearer and hmac.compare_digest(bearer[1], self.options.key.strip().encode()):
            return None
        message = "this server needs an API key: send Authorization: Bearer KEY"
        return APIError(401, message, code="invalid_api_key")

    def _limited(self, receive: Receive) -> Receive:
        """Limit the size of a body and the time it may take to arrive."""
        limits = self.options
        deadline = asyncio.get_running_loop().time() + limits.body_timeout
        size, complete = 0, False

        async def receive_limited() -> Message:
            nonlocal size, complete
            if complete:  # the next message comes when the client disconnects
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise APIError(408, "the request body did not arrive in time") from None
            size += len(message.get("body", b""))
            if size > limits.max_body_bytes:
                problem = f"the request body is larger than {limits.max_body_bytes} bytes"
                raise APIError(413, problem)
            complete = not message.get("more_body", False)
            return message

        return receive_limited


class PageFiles(StaticFiles):
    """The page's files; browsers revalidate them at each load."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Return a file, or the status 304 if it has not changed."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(REVALIDATE)
        return response


def _only_header(scope: Scope, name: bytes) -> bytes:
    """Return the value of a header; nothing if it is missing or repeated."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0] if len(values) == 1 else b""


def with_enough_connections(options: ServerOptions) -> ServerOptions:
    """Allow more connections than sequences, but not more than the system allows open files."""
    capacity = options.slots + options.queue_size
    most = max(1, (_max_open_files() - OTHER_FILES) // BURST)
    return replace(
        options,
        max_connections=min(most, max(options.max_connections, 4 * capacity)),
        max_connections_per_client=max(options.max_connections_per_client, 2 * capacity),
    )


def _max_open_files() -> int:
    """Raise the limit of open files as far as possible, and return it."""
    try:
        import resource
    except ImportError:  # Windows
        return sys.maxsize
    with suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket."""
    if not host:
        raise AtlasError("--host is empty; use 127.0.0.1, or 0.0.0.0 to accept other machines")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        return listener
    except (OSError, OverflowError) as error:
        raise AtlasError(
            f"--host {host} --port {port}: address not available ({error}); try another --port"
        ) from None
