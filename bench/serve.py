"""Load test of ``atlas serve``, and its time to first token.

    python -m bench.serve                           # models/model, 64 clients, 60 seconds
    python -m bench.serve --seconds 10 --clients 8
    python -m bench.serve --preset small            # time to first token of a larger model

The server runs in a process of its own. First comes the time to first token of the idle server,
alternating with a forward pass of the same prompt in PyTorch. Then clients send requests without a
pause, streamed or not, and some disconnect halfway. Every text is compared with what the model
generates alone from the same seed. Refusals (429, 503) are counted; anything else is an error.
Memory is that of the server's process.
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import torch

from atlas.inference.backends.base import LoadedModel
from atlas.inference.backends.load import load_model
from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import Sampling
from atlas.model import weights
from atlas.tokens.tokenizer import Tokenizer
from bench.generate import store_preset
from bench.shared import ROOT

PROMPTS = ("Return the", "def ", "The list of", "If the argument is", "class Path", "import os\n")
REQUESTS = 300  # different ones; each client picks among them
REFUSALS = (429, 503)
ROUNDS = 30  # of time to first token
WARM_UP_ROUNDS = 3
PAUSE = 0.2  # seconds, until the threads of the forward pass sleep
DISCONNECT_SHARE = 0.1


@dataclass(frozen=True)
class LoadRequest:
    """One request."""

    prompt: str
    max_tokens: int
    temperature: float
    seed: int


@dataclass
class LoadResult:
    """Observations of all clients.

    Attributes:
        texts: complete ones, with their request.
        tokens: received, also of incomplete texts.
        disconnects: made by clients on purpose.
        errors: messages of unexpected failures.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    texts: list[tuple[LoadRequest, str]] = field(default_factory=list)
    tokens: int = 0
    disconnects: int = 0
    errors: list[str] = field(default_factory=list)


def main() -> None:
    """Print the time to first token, then the results of the load test."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models/model")
    parser.add_argument("--preset", help="only time the first token, of random weights")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    tokenizer = options.model.parent / "tokenizer"
    with tempfile.TemporaryDirectory() as name:
        model = options.model
        if options.preset:
            model = Path(name) / "model"
            store_preset(model, options.preset, Tokenizer.load(tokenizer))
        with serving(model, tokenizer) as (address, process):
            time_first_token(address, model, tokenizer)
            if options.preset:
                return
            load = run_load(address, process, options.clients, options.seconds)
            result, memory = asyncio.run(load)
            report(result, memory, options.seconds, running_sequences(address))
    check(result, load_model(options.model, tokenizer))


@contextmanager
def serving(model: Path, tokenizer: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Run a server; yield its address and process."""
    command = [sys.executable, "-c", "from atlas.tools.cli import run; run()", "serve"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--model", str(model), "--tokenizer", str(tokenizer)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().replace(",", "").split()
        yield next(word for word in words if word.startswith("http")), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def time_first_token(address: str, model: Path, tokenizer: Path) -> None:
    """Print the time to first token of an idle server, compared with a forward pass."""
    decoder = weights.load_model(model, torch.device("cpu"))
    text = " ".join(PROMPTS) * 9
    ids = Tokenizer.load(tokenizer).encode(text)[: decoder.config.context_length - 1]
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    request = {"model": model_name(address), "prompt": ids, "max_tokens": 1, "stream": True}
    headers = {"Content-Type": "application/json"}
    forward_times, first_token_times = [], []
    for number in range(WARM_UP_ROUNDS + ROUNDS):
        started = time.perf_counter()
        with torch.inference_mode():
            decoder(torch.tensor([ids]))
        forward_time = time.perf_counter() - started
        time.sleep(PAUSE)
        started = time.perf_counter()
        connection.request("POST", "/v1/completions", json.dumps(request), headers)
        response = connection.getresponse()
        response.readline()
        first_token_time = time.perf_counter() - started
        response.read()
        if number >= WARM_UP_ROUNDS:
            forward_times.append(forward_time)
            first_token_times.append(first_token_time)
    ratios = sorted(a / b for a, b in zip(first_token_times, forward_times, strict=True))
    print(
        f"time to first token, prompt of {len(ids)} tokens: "
        f"{1000 * statistics.median(first_token_times):.1f} ms; one forward pass: "
        f"{1000 * statistics.median(forward_times):.1f} ms; ratio "
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


async def run_load(
    address: str, process: psutil.Process, clients: int, seconds: float
) -> tuple[LoadResult, list[float]]:
    """Run all clients; return their observations and the server's memory each second, in MB."""
    result, generator = LoadResult(), random.Random(1)
    requests = [
        LoadRequest(
            generator.choice(PROMPTS), generator.randint(5, 60), generator.choice((0, 1)), seed
        )
        for seed in range(REQUESTS)
    ]
    memory: list[float] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as http_client:
        name = model_name(address)
        deadline = time.monotonic() + seconds
        tasks = [
            asyncio.create_task(
                run_client(http_client, name, requests, random.Random(seed), deadline, result)
            )
            for seed in range(clients)
        ]
        while time.monotonic() < deadline:
            memory.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(1)
        await asyncio.gather(*tasks)
    return result, memory


async def run_client(
    client: httpx.AsyncClient,
    model: str,
    requests: list[LoadRequest],
    generator: random.Random,
    deadline: float,
    result: LoadResult,
) -> None:
    """Send requests until the deadline."""
    while time.monotonic() < deadline:
        request, stream = generator.choice(requests), generator.random() < 0.5
        disconnect = stream and generator.random() < 2 * DISCONNECT_SHARE
        body = {"model": model, "stream": stream, **asdict(request)}
        try:
            async with client.stream("POST", "/v1/completions", json=body) as response:
                result.statuses[response.status_code] += 1
                if response.status_code != 200:
                    await response.aread()
                    if response.status_code not in REFUSALS:
                        result.errors.append(response.text)
                    await asyncio.sleep(float(response.headers.get("Retry-After", 0)) / 4)
                elif stream:
                    await read_stream(response, request, result, disconnect=disconnect)
                else:
                    completion = json.loads(await response.aread())
                    result.tokens += completion["usage"]["completion_tokens"]
                    result.texts.append((request, completion["choices"][0]["text"]))
        except httpx.HTTPError as error:
            result.errors.append(repr(error))


async def read_stream(
    response: httpx.Response, request: LoadRequest, result: LoadResult, *, disconnect: bool
) -> None:
    """Read a streamed completion, or only its first chunk."""
    text, done = "", False
    async for line in response.aiter_lines():
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data: "):
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                result.errors.append(line)
                return
            (choice,) = chunk["choices"]
            text += choice["text"]
            result.tokens += choice["finish_reason"] is None
            if disconnect:
                result.disconnects += 1
                return
    if done:
        result.texts.append((request, text))
    else:
        result.errors.append("a stream without [DONE]")


def report(result: LoadResult, memory: list[float], seconds: float, running: float) -> None:
    """Print the results of the load test."""
    quarter = max(1, len(memory) // 4)
    print(
        f"responses: {dict(result.statuses)}; {len(result.texts)} complete texts, "
        f"{result.disconnects} disconnects"
    )
    print(f"{result.tokens / seconds:,.0f} tokens/s in {seconds:g} s; {len(result.errors)} errors")
    for error in result.errors[:5]:
        print(f"  {error[:200]}")
    print(
        f"memory: {statistics.mean(memory[quarter : 2 * quarter]):.0f} MB in the second quarter, "
        f"{statistics.mean(memory[-quarter:]):.0f} MB in the last"
    )
    print(f"sequences still running after the last response: {running:g}")


def check(result: LoadResult, model: LoadedModel) -> None:
    """Print how many texts equal what the model generates alone."""
    expected: dict[LoadRequest, str] = {}
    different = 0
    for request, text in result.texts:
        if request not in expected:
            sampling = Sampling(
                temperature=request.temperature, top_k=0, top_p=1, seed=request.seed
            )
            sequence = TokenSequence(model.encode(request.prompt), request.max_tokens, sampling)
            expected[request] = "".join(model.stream(sequence))
        different += text != expected[request]
    print(
        f"{len(result.texts) - different} of {len(result.texts)} texts equal those of a single run "
        f"({len(expected)} different requests)"
    )


def model_name(address: str) -> str:
    """Return the name of the served model."""
    name: str = httpx.get(f"{address}/v1/models").json()["data"][0]["id"]
    return name


def running_sequences(address: str) -> float:
    """Return how many sequences run a second after the last client has gone."""
    time.sleep(1)
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return float(next(x.split()[1] for x in lines if x.startswith("atlas_sequences_running")))


if __name__ == "__main__":
    main()
