"""Real clients next to hundreds of connections that are silent, slow or half open.

    python -m bench.slow_clients              # 600 next to 8 clients, 60 seconds
    python -m bench.slow_clients --connections 100 --seconds 10

All come from 127.0.0.1, so a limit per address can't tell them apart. The silent ones send nothing;
the others send headers or a body at one byte per second, or request a stream and never read it.
Each opens a new connection as soon as its own is closed. The clients send completions, streamed or
not, and try again after 429 and 503 as OpenAI's client does; /health is asked every second.
"""

import argparse
import asyncio
import json
import resource
import select
import socket
import statistics
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil

from bench.serve import REFUSALS, model_name, serving
from bench.shared import ROOT

POST = (
    "POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    "Content-Length: {}\r\n\r\n"
)
KINDS = ("silent", "headers", "body", "reader", "silent", "headers")
RAMP_SECONDS = 5  # in which the first connections are opened
RECONNECT_SECONDS = 0.5
TOKENS = 20


@dataclass
class Outcome:
    """Observations of all clients: seconds per answer, and connections of slow ones."""

    latencies: list[list[float]] = field(default_factory=list)  # per client
    health: list[float] = field(default_factory=list)
    refusals: int = 0
    errors: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)  # of the server each second, in MB
    opened: int = 0
    open_now: int = 0
    open_most: int = 0


def main() -> None:
    """Print latencies and memory."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models/model")
    parser.add_argument("--connections", type=int, default=600)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < options.connections + 100:
        print(
            f"only {limit - 100} slow connections: the limit of open files (ulimit -n) is {limit}"
        )
    count = min(options.connections, limit - 100)
    with serving(options.model, options.model.parent / "tokenizer") as (address, process):
        run = run_load(address, process, count, options.clients, options.seconds)
        report(asyncio.run(run), count)


async def run_load(
    address: str, process: psutil.Process, connections: int, clients: int, seconds: float
) -> Outcome:
    """Run slow connections and real clients side by side."""
    outcome = Outcome(latencies=[[] for _ in range(clients)])
    name = await asyncio.to_thread(model_name, address)
    deadline = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=address, timeout=30) as http:
        await complete(http, name, 0, [], outcome)  # warm-up
        slow = [
            asyncio.create_task(keep_connecting(kind, delay, address, name, outcome))
            for kind, delay in zip(cycle(KINDS), np.linspace(0, RAMP_SECONDS, connections))
        ]
        real = [
            asyncio.create_task(keep_asking(http, name, number, deadline, outcome))
            for number in range(clients)
        ]
        while time.monotonic() < deadline:
            outcome.memory.append(process.memory_info().rss / 1e6)
            await ask_health(http, outcome)
            await asyncio.sleep(1)
        await asyncio.gather(*real)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    return outcome


async def keep_connecting(
    kind: str, delay: float, address: str, model: str, outcome: Outcome
) -> None:
    """Open slow connections, one after the other."""
    await asyncio.sleep(delay)
    while True:
        with suppress(OSError, asyncio.IncompleteReadError):
            await occupy(kind, address, model, outcome)
        await asyncio.sleep(RECONNECT_SECONDS)


async def occupy(kind: str, address: str, model: str, outcome: Outcome) -> None:
    """Hold one connection until the server closes it."""
    url = urlsplit(address)
    connection = socket.socket()
    connection.setblocking(False)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    with connection:
        await loop.sock_connect(connection, (url.hostname, url.port))
        outcome.opened += 1
        outcome.open_now += 1
        outcome.open_most = max(outcome.open_most, outcome.open_now)
        try:
            if kind == "silent":
                await loop.sock_recv(connection, 1)
            elif kind == "reader":
                request = {"model": model, "prompt": "a", "max_tokens": TOKENS, "stream": True}
                body = json.dumps(request)
                await loop.sock_sendall(connection, (POST.format(len(body)) + body).encode())
                while not closed_by_peer(connection):
                    await asyncio.sleep(1)
            else:
                start = POST.format(1000)
                text = start[:-2] + "X: " if kind == "headers" else start
                await loop.sock_sendall(connection, text.encode())
                while not closed_by_peer(connection):
                    await asyncio.sleep(1)
                    await loop.sock_sendall(connection, b" ")
        finally:
            outcome.open_now -= 1


def closed_by_peer(connection: socket.socket) -> bool:
    """Return whether the server has closed the connection, without reading a response."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    return bool(poll.poll(0))


async def keep_asking(
    http: httpx.AsyncClient, model: str, number: int, deadline: float, outcome: Outcome
) -> None:
    """Send completions until the deadline."""
    while time.monotonic() < deadline:
        await complete(http, model, number, outcome.latencies[number], outcome)
        await asyncio.sleep(0.2)


async def complete(
    http: httpx.AsyncClient, model: str, number: int, latencies: list[float], outcome: Outcome
) -> None:
    """Request one completion; try again if the server is busy."""
    stream = len(latencies) % 2 == 0
    body = {"model": model, "prompt": "def ", "max_tokens": TOKENS, "seed": number}
    started = time.monotonic()
    while True:
        try:
            answer = await http.post("/v1/completions", json=body | {"stream": stream})
        except httpx.HTTPError as error:
            outcome.errors.append(repr(error))
            return
        if answer.status_code not in REFUSALS:
            break
        outcome.refusals += 1
        await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
    if answer.status_code == 200 and (not stream or answer.text.endswith("data: [DONE]\n\n")):
        latencies.append(time.monotonic() - started)
    else:
        outcome.errors.append(answer.text[:200])


async def ask_health(http: httpx.AsyncClient, outcome: Outcome) -> None:
    """Time /health."""
    started = time.monotonic()
    try:
        (await http.get("/health")).raise_for_status()
    except httpx.HTTPError as error:
        outcome.errors.append(f"/health: {error!r}")
    else:
        outcome.health.append(time.monotonic() - started)


def report(outcome: Outcome, connections: int) -> None:
    """Print what the clients saw."""
    print(
        f"{connections} slow clients: {outcome.open_most} connections at the same time, "
        f"{outcome.opened} in all"
    )
    for number, latencies in enumerate(outcome.latencies):
        print(f"client {number}: {describe(latencies)}")
    print(f"/health: {describe(outcome.health)}")
    print(f"{outcome.refusals} refusals (429, 503), tried again; {len(outcome.errors)} errors")
    for error in outcome.errors[:5]:
        print(f"  {error}")
    start, middle, end = (outcome.memory[i] for i in (0, len(outcome.memory) // 2, -1))
    print(f"memory: {start:.0f} MB at the start, {middle:.0f} MB halfway, {end:.0f} MB at the end")


def describe(seconds: list[float]) -> str:
    """Return count, median and maximum."""
    if not seconds:
        return "no answer"
    median, most = 1000 * statistics.median(seconds), 1000 * max(seconds)
    return f"{len(seconds)} answers, median {median:.0f} ms, longest {most:.0f} ms"


if __name__ == "__main__":
    main()
