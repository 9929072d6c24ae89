"""Middleware around every request: host name, API key, body limits, metrics, unexpected errors."""

import asyncio
import hmac
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas.tools.serve.engine import Limits
from atlas.tools.serve.errors import APIError
from atlas.tools.serve.metrics import Metrics

PUBLIC_PATHS = ("/", "/health")  # need no key
PUBLIC_FOLDER = "/page/"
INTERNAL_ERROR = 500
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Guard:
    """ASGI middleware; Starlette's ``BaseHTTPMiddleware`` would hide that a client disconnects."""

    app: ASGIApp
    limits: Limits
    metrics: Metrics | None
    key: str | None  # None if clients need no API key
    hosts: Collection[str] | None  # allowed host names; None for all
    paths: Collection[str]  # counted one by one in the metrics; all others are counted together

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.monotonic()
        status: int | None = None

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope)
            app = self.app if refusal is None else refusal.response()
            await app(scope, self._limited(receive), send_and_note_status)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if status is not None:
                raise  # a response that has started can't be replaced
            failure = APIError(INTERNAL_ERROR, "internal server error; see the server's log")
            await failure.response()(scope, receive, send_and_note_status)
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
        headers = dict(scope["headers"])
        host = urlsplit("//" + headers.get(b"host", b"").decode("latin-1")).hostname
        if self.hosts is not None and host not in self.hosts:
            return APIError(400, "the Host header does not name this server")
        path: str = scope["path"]
        if self.key is None or path in PUBLIC_PATHS or path.startswith(PUBLIC_FOLDER):
            return None
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(key, self.key.encode()):
            return None
        return APIError(
            401,
            "this server needs an API key: send Authorization: Bearer KEY",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _limited(self, receive: Receive) -> Receive:
        """Limit the size of a body and the time it may take to arrive."""
        limits = self.limits
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
            if size > limits.max_body_bytes:  # the rest is not read
                raise APIError(
                    413,
                    f"the request body is larger than {limits.max_body_bytes} bytes",
                    headers={"Connection": "close"},
                )
            complete = not message.get("more_body", False)
            return message

        return receive_limited
