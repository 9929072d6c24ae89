"""``atlas serve``: a model behind an address."""

import ipaddress
import socket
import sys
from pathlib import Path

import uvicorn

from atlas.errors import AtlasError
from atlas.generation.batch import Beyond
from atlas.generation.opened.opened_model import OpenedModel
from atlas.serve.app import create_app
from atlas.serve.limits import Limits

SECONDS_TO_END = 3  # for answers that are being written when the server is stopped
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
    loopback = _is_loopback(host)
    listening = _listen(host, port)
    app = create_app(
        opened,
        limits,
        key=key,
        hosts=["127.0.0.1", "localhost"] if loopback else None,
        metrics_folder=metrics_folder,
        beyond=beyond,
    )
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_keep_alive=SECONDS_KEPT,
        timeout_graceful_shutdown=SECONDS_TO_END,
    )
    address = f"http://{'127.0.0.1' if loopback else host}:{listening.getsockname()[1]}"
    print(f"{opened.name} ({opened.form}): {address} is the page, {address}/v1 the API")
    if not loopback and key is None:
        print("note: anybody who reaches this address may use it; --key KEY", file=sys.stderr)
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listening])


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise AtlasError(
            f"--host {host} --port {port}: can't be had ({error}); give another --port"
        ) from None
