"""The server under load, and how soon it answers.

    python -m bench.serve                           # models/model, 64 clients, 60 seconds
    python -m bench.serve --seconds 10 --clients 8
    python -m bench.serve --preset small            # the first token of a larger model

A server (`atlas serve`) runs in a process of its own. First the seconds to its first token, idle,
beside one forward pass of the same prompt in PyTorch, in turns. Then clients ask without a pause,
streamed and whole, some of them hang up in the middle; each answer is compared with what the model
writes alone with that seed. Refusals (429, 503) are counted, anything else is an error. The memory
is that of the server's process.
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
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import torch

from atlas.inference.backends.load import open_model
from atlas.inference.backends.loaded_model import OpenedModel
from atlas.inference.batch import Text
from atlas.inference.sampling import Sampling
from atlas.model.storage import load_model
from atlas.tokens.tokenizer import Tokenizer
from bench.generate import store_preset
from bench.shared import ROOT

PROMPTS = ("Return the", "def ", "The list of", "If the argument is", "class Path", "import os\n")
KINDS = 300  # of requests, drawn from by all clients
REFUSALS = (429, 503)
ROUNDS = 30  # of first tokens
PAUSE = 0.2  # seconds
LEAVES = 0.1  # share of the requests whose client hangs up


@dataclass(frozen=True)
class Asked:
    """A request."""

    prompt: str
    tokens: int
    temperature: float
    seed: int


@dataclass
class Seen:
    """What the clients saw.

    Attributes:
        statuses: of all answers.
        texts: of whole answers, by request.
        tokens: that came in them.
        left: answers from which a client went away.
        errors: what should not have been.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    texts: list[tuple[Asked, str]] = field(default_factory=list)
    tokens: int = 0
    left: int = 0
    errors: list[str] = field(default_factory=list)


def main() -> None:
    """Prints first-token times, then what came of the load."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models/model")
    parser.add_argument("--preset", help="a model of random weights instead; first token alone")
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
            first_tokens(address, model, tokenizer)
            if options.preset:
                return
            seen, memory = asyncio.run(load(address, process, options.clients, options.seconds))
            report(seen, memory, options.seconds, growing(address))
    check(seen, open_model(options.model, tokenizer))


@contextmanager
def serving(model: Path, tokenizer: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server, ended with the block."""
    command = [
        sys.executable,
        "-c",
        "from atlas.tools.cli import run; run()",
        "serve",
        "--port",
        "0",
    ]
    process = subprocess.Popen(
        [*command, "--model", str(model), "--tokenizer", str(tokenizer)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        words = process.stdout.readline().split()
        yield next(word for word in words if word.startswith("http")), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def first_tokens(address: str, model: Path, tokenizer: Path) -> None:
    """Seconds to the first token of an idle server, beside a forward pass."""
    known = load_model(model, torch.device("cpu"))
    ids = Tokenizer.load(tokenizer).encode(" ".join(PROMPTS) * 9)[: known.config.context_length - 1]
    url = urlsplit(address)
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    body = json.dumps(
        {"model": served_name(address), "prompt": ids, "max_tokens": 1, "stream": True}
    )
    forwards, answers = [], []
    for number in range(ROUNDS + 3):
        started = time.perf_counter()
        with torch.inference_mode():
            known(torch.tensor([ids]))
        between = time.perf_counter()
        time.sleep(PAUSE)  # the threads of the forward pass stay awake for a while
        asked = time.perf_counter()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.readline()
        ended = time.perf_counter()
        answer.read()
        if number >= 3:  # the first ones are slower, in both
            forwards.append(between - started)
            answers.append(ended - asked)
    ratios = sorted(answer / forward for answer, forward in zip(answers, forwards, strict=True))
    print(
        f"first token of a prompt of {len(ids)}: {1000 * statistics.median(answers):.1f} ms, one "
        f"forward pass {1000 * statistics.median(forwards):.1f} ms: "
        f"{statistics.median(ratios):.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


async def load(
    address: str, process: psutil.Process, clients: int, seconds: float
) -> tuple[Seen, list[float]]:
    """Lets clients ask for so long; what they saw, and the server's memory each second, in MB."""
    seen, generator = Seen(), random.Random(1)
    kinds = [
        Asked(generator.choice(PROMPTS), generator.randint(5, 60), generator.choice((0, 1)), seed)
        for seed in range(KINDS)
    ]
    memory: list[float] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as http_client:
        name = served_name(address)
        deadline = time.monotonic() + seconds
        tasks = [
            asyncio.create_task(ask(http_client, name, kinds, random.Random(each), deadline, seen))
            for each in range(clients)
        ]
        while time.monotonic() < deadline:
            memory.append(process.memory_info().rss / 1e6)
            await asyncio.sleep(1)
        await asyncio.gather(*tasks)
    return seen, memory


async def ask(
    client: httpx.AsyncClient,
    name: str,
    kinds: list[Asked],
    generator: random.Random,
    deadline: float,
    seen: Seen,
) -> None:
    """One client, which asks until the deadline."""
    while time.monotonic() < deadline:
        asked, stream = generator.choice(kinds), generator.random() < 0.5
        leaves = stream and generator.random() < 2 * LEAVES
        body = {
            "model": name, "prompt": asked.prompt, "max_tokens": asked.tokens,
            "temperature": asked.temperature, "seed": asked.seed, "stream": stream,
        }  # fmt: skip
        try:
            async with client.stream("POST", "/v1/completions", json=body) as answer:
                seen.statuses[answer.status_code] += 1
                if answer.status_code != 200:
                    await answer.aread()
                    if answer.status_code not in REFUSALS:
                        seen.errors.append(answer.text)
                    await asyncio.sleep(float(answer.headers.get("Retry-After", 0)) / 4)
                elif stream:
                    await _stream(answer, asked, seen, leaves=leaves)
                else:
                    whole = json.loads(await answer.aread())
                    seen.tokens += whole["usage"]["completion_tokens"]
                    seen.texts.append((asked, whole["choices"][0]["text"]))
        except httpx.HTTPError as error:
            seen.errors.append(repr(error))


async def _stream(answer: httpx.Response, asked: Asked, seen: Seen, *, leaves: bool) -> None:
    text, done = "", False
    async for line in answer.aiter_lines():
        if line == "data: [DONE]":
            done = True
        elif line.startswith("data: "):
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                seen.errors.append(line)
                return
            (choice,) = chunk["choices"]
            text += choice["text"]
            seen.tokens += choice["finish_reason"] is None
            if leaves:
                seen.left += 1
                return
    if done:
        seen.texts.append((asked, text))
    else:
        seen.errors.append("a stream without an end")


def report(seen: Seen, memory: list[float], seconds: float, left_growing: float) -> None:
    """Prints what was seen."""
    quarter = max(1, len(memory) // 4)
    print(f"answers: {dict(seen.statuses)}, {len(seen.texts)} whole, {seen.left} left by clients")
    print(f"{seen.tokens / seconds:,.0f} tokens/s in {seconds:g} s; errors: {len(seen.errors)}")
    for error in seen.errors[:5]:
        print(f"  {error[:200]}")
    print(
        f"memory: {statistics.mean(memory[quarter : 2 * quarter]):.0f} MB in the second quarter, "
        f"{statistics.mean(memory[-quarter:]):.0f} MB in the last"
    )
    print(f"texts that grow after the last answer: {left_growing:g}")


def check(seen: Seen, opened: OpenedModel) -> None:
    """Prints how many answers are what the model writes alone."""
    expected: dict[Asked, str] = {}
    apart = 0
    for asked, text in seen.texts:
        if asked not in expected:
            sampling = Sampling(temperature=asked.temperature, top_k=0, top_p=1, seed=asked.seed)
            ids = opened.encode(asked.prompt)
            expected[asked] = "".join(opened.stream(Text(ids, asked.tokens, sampling)))
        apart += text != expected[asked]
    print(
        f"{len(seen.texts) - apart} of {len(seen.texts)} answers are those of a single run "
        f"({len(expected)} different ones)"
    )


def served_name(address: str) -> str:
    """The name of the model."""
    name: str = httpx.get(f"{address}/v1/models").json()["data"][0]["id"]
    return name


def growing(address: str) -> float:
    """Texts that the server still writes, a second after the last client has gone."""
    time.sleep(1)
    lines = httpx.get(f"{address}/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("atlas_texts_growing")))


if __name__ == "__main__":
    main()
