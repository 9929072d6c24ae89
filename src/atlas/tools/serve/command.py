"""``atlas serve``: a model behind an address."""

import ipaddress
import socket
import sys
from pathlib import Path

import uvicorn

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.loaded_model import OpenedModel
from atlas.inference.batch import Beyond
from atlas.tools.serve.app import create_app
from atlas.tools.serve.engine import Engine
from atlas.tools.serve.limits import Limits

SECONDS_TO_END = 3  # for answers that are being written when the server is stopped
LOCAL = ("127.0.0.1", "localhost", "::1")
SECONDS_KEPT = 30  # a connection that asks nothing more


def serve(
    opened: OpenedModel,
    host: str,
    port: int,
    limits: Limits,
    *,
    key: str | None,
    metrics_folder: Path | None,
    beyond: Beyond,
) -> None:
    """Serves a model until it is stopped.

    Raises:
        AtlasError: the address can't be had.
    """
    listening = _listen(host, port)
    loopback = _is_loopback(host)
    try:
        app = create_app(
            opened,
            limits,
            key=key,
            hosts=[*LOCAL, host] if loopback else None,
            metrics_folder=metrics_folder,
            beyond=beyond,
        )
    except (RuntimeError, MemoryError) as error:
        raise AtlasError(
            f"--slots {limits.slots}: there is no memory for so many, give fewer "
            f"({one_line(error)[:80]})"
        ) from None
    named = f"[{host}]" if ":" in host else host
    address = f"http://{named}:{listening.getsockname()[1]}"
    if not loopback and key is None:
        print("note: anybody who reaches this address may use it; --key KEY", file=sys.stderr)
    print(f"{opened.name} ({opened.form}): {address} is the page, {address}/v1 the API", flush=True)
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=SECONDS_KEPT,
        timeout_graceful_shutdown=SECONDS_TO_END,
    )
    Server(config, app.state.engine).run(sockets=[listening])


class Server(uvicorn.Server):
    """Tells the engine first when it is to end, so that every client gets an end of its answer."""

    def __init__(self, config: uvicorn.Config, engine: Engine) -> None:
        super().__init__(config)
        self._engine = engine

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends the answers, then the connections."""
        self._engine.stop()
        await super().shutdown(sockets)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    if not host:
        raise AtlasError("--host is empty: give 127.0.0.1, or 0.0.0.0 for others to reach it")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise AtlasError(
            f"--host {host} --port {port}: can't be had ({error}); give another --port"
        ) from None
