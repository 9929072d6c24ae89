"""What stands around every request: the key, the time for its body, counters, errors."""

import asyncio
import hmac
import logging
import time
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atlas.tools.serve.errors import error_response
from atlas.tools.serve.limits import Limits
from atlas.tools.serve.metrics import Metrics

OPEN = ("/", "/health")  # without a key
OPEN_FOLDER = "/page/"
FAILED = 500
logger = logging.getLogger(__name__)


class Guard:
    """An ASGI middleware: Starlette's own kind does not see when a client hangs up."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        metrics: Metrics,
        key: str | None,
        hosts: Collection[str] | None,
        paths: Collection[str],
    ) -> None:
        """Guards an app.

        Args:
            app: that answers what passes.
            limits: of a body.
            metrics: that count answers.
            key: that clients must have; None for no key.
            hosts: names by which the server may be called; None for any.
            paths: that are counted by name.
        """
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._key = key
        self._hosts = None if hosts is None else frozenset(hosts)
        self._paths = frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status: int | None = None

        async def noticing(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if not self._is_called_by_name(scope):
                refusal = error_response(400, "this server does not go by that name (Host)")
                await refusal(scope, receive, noticing)
            elif self._may_enter(scope):
                await self._app(scope, self._limited(receive), noticing)
            else:
                await _wants_key(scope, receive, noticing)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if status is not None:
                raise  # of what was sent already nothing can be taken back
            failure = error_response(FAILED, "the server failed; its log says how")
            await failure(scope, receive, noticing)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.answered(path, status or FAILED, time.monotonic() - started)

    def _is_called_by_name(self, scope: Scope) -> bool:
        """Whether no web page elsewhere had a browser call a name of its own for this machine."""
        given = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        return self._hosts is None or urlsplit(f"//{given}").hostname in self._hosts

    def _may_enter(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if self._key is None or path in OPEN or path.startswith(OPEN_FOLDER):
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, key = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(key, self._key.encode())

    def _limited(self, receive: Receive) -> Receive:
        """What a client sends, which has a largest size and a last time."""
        limits = self._limits
        deadline = asyncio.get_running_loop().time() + limits.body_seconds
        size, complete = 0, False

        async def receive_limited() -> Message:
            nonlocal size, complete
            if complete:  # what comes now is that the client hangs up, some time
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the body did not come in time") from None
            size += len(message.get("body", b""))
            if size > limits.body_bytes:  # what is left of it is not read
                headers = {"Connection": "close"}
                raise HTTPException(413, f"more than {limits.body_bytes} bytes", headers)
            complete = not message.get("more_body", False)
            return message

        return receive_limited


async def _wants_key(scope: Scope, receive: Receive, send: Send) -> None:
    refusal = error_response(
        401,
        "this server wants its API key: Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )
    await refusal(scope, receive, send)
