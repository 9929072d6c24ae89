"""HTTP connections, with deadlines and limits that uvicorn does not have."""

import asyncio
import ipaddress
import time
from http import HTTPStatus
from typing import Any, Literal

from starlette.responses import JSONResponse
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from atlas.tools.serve.engine import ServerOptions
from atlas.tools.serve.schemas import APIError

SECURITY_HEADERS = {  # of every response: the page loads nothing from elsewhere, nobody frames it
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
MAX_HEADER_BYTES = 1 << 16
MAX_CHUNKING_BYTES = 1 << 20  # sizes of chunks, and trailers, in addition to a body
GRACE_SECONDS = 1.0  # for the request of a new connection to arrive, in a burst of others
BURST = 2  # times the limit, during which new connections have this time
IPV6_HOST_BITS = 64  # one client usually has all addresses of a network of this size
State = Literal["idle", "headers", "body", "reader", "working"]


class Connection(HttpToolsProtocol):
    """A connection that is closed when its client takes too long, or to make room for another.

    A client that does not send its request, or does not read its response, has a deadline, which
    further bytes don't extend. If there are too many connections, the one that has waited longest
    for its client makes room, so that silent clients can't shut out others.
    """

    app: ASGIApp

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.options: ServerOptions = self.app_state["options"]
        self.network = ""  # of the client
        self._waiting_since = 0.0  # on the clock of time.monotonic()
        self._current: tuple[State, object] | None = None  # with its request
        self._received = 0  # bytes in the current state
        self._body_complete = True
        self._is_last = False  # after a second request came before the first response
        self._timer: asyncio.TimerHandle | None = None

    @property
    def state(self) -> State:
        """The action that is due: an action of the client, unless the server is working."""
        if self.flow.write_paused:
            return "reader"
        if not self._body_complete:
            return "body"
        if self.cycle is not None and not self.cycle.response_complete:
            return "working"
        return "headers" if self.timeout_keep_alive_task is None else "idle"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline of the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # to notice every byte that is left unread
        self.network = client_network(self.client[0]) if self.client else ""
        self._update()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        if self._is_last:
            return
        super().data_received(data)
        self._received += len(data)
        self._update()
        if self.state == "body":
            if self._received > self.options.max_body_bytes + MAX_CHUNKING_BYTES:
                self._refuse(413, "the request is too large")
        elif self._received > MAX_HEADER_BYTES:
            self._refuse(431, f"the request headers are larger than {MAX_HEADER_BYTES} bytes")

    def on_headers_complete(self) -> None:
        """Start the response, unless another is under way: pipelining ends the connection."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._is_last, self.cycle.keep_alive = True, False
            raise ValueError("pipelined request")
        super().on_headers_complete()
        self._body_complete = False

    def on_message_complete(self) -> None:
        """Note the end of the body."""
        self._body_complete = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._update()

    def pause_writing(self) -> None:
        """Wait for the client to read."""
        super().pause_writing()
        self._update()

    def resume_writing(self) -> None:
        """Continue to send."""
        super().resume_writing()
        self._update()

    def send_400_response(self, _msg: str) -> None:
        """Reject data that is not HTTP."""
        if self._is_last:
            return
        self._refuse(400, "malformed HTTP request")

    def _update(self) -> None:
        """Start the deadline of a new state."""
        current = (self.state, self.cycle)
        if current == self._current:
            return
        self._current, self._received = current, 0
        self._waiting_since = time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        seconds = {
            "headers": self.options.header_timeout,
            "body": 2 * self.options.body_timeout,  # unless the app gives up earlier
            "reader": self.options.reader_timeout,
        }.get(self.state)
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self.state == "headers" and self._received:
            self._refuse(408, "the request headers did not arrive in time")
        else:
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        """Send an error if no response is under way, and close the connection."""
        if self.state == "headers" or (self.state == "body" and not self.cycle.response_started):
            response = error_response(status, message)
            lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
            lines += [b"%s: %s" % header for header in response.raw_headers]
            self.transport.write(b"\r\n".join([*lines, b"", bytes(response.body)]))
        self.transport.close()

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client, or refuse this one."""
        everyone = [each for each in self.connections if isinstance(each, Connection)]
        neighbors = [each for each in everyone if each.network == self.network]
        for connections, limit in (
            (neighbors, self.options.max_connections_per_client),
            (everyone, self.options.max_connections),
        ):
            open_ones = [each for each in connections if not each.transport.is_closing()]
            if len(open_ones) <= limit:
                continue
            waiting = [each for each in open_ones if each is not self and each.state != "working"]
            if not waiting:
                self.app = error_response(503, "too many connections; try again later")
                return
            oldest = min(waiting, key=Connection.rank)
            age = time.monotonic() - oldest._waiting_since
            if age > GRACE_SECONDS or len(open_ones) > BURST * limit:
                oldest.transport.abort()

    def rank(self) -> tuple[bool, float]:
        """Order waiting connections: first those without a request so far, then by time."""
        return self.cycle is not None, self._waiting_since


def error_response(status: int, message: str) -> JSONResponse:
    """Return the last response on a connection."""
    response = APIError(status, message).response()
    response.headers.update(SECURITY_HEADERS | {"Connection": "close"})
    return response


def client_network(address: str) -> str:
    """Return the address, or the network for IPv6, where a client has many addresses."""
    ip = ipaddress.ip_address(address)
    return address if ip.version == 4 else str(int(ip) >> IPV6_HOST_BITS)
