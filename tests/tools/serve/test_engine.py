"""Sequences of many clients over one model: none is lost, mixed up or left running."""

import asyncio
import sys
import time
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from atlas.inference.batch import TokenSequence
from atlas.inference.sampling import Sampling
from atlas.tools.serve.engine import Engine, ServerOptions
from atlas.tools.serve.schemas import EngineError
from tests.tools.serve.support import opened_model, running

LONG = {"model": "small", "prompt": "the", "max_tokens": 10**6, "seed": 1}


def sequence(opened, seed, tokens=20):
    prompts = ("the lamp", "one", "a red stone", "")
    sampling = Sampling(temperature=1, top_k=0, top_p=1, seed=seed)
    return TokenSequence(opened.encode(prompts[seed % 4]), tokens, sampling)


def alone(opened, seed, tokens=20):
    found = sequence(opened, seed, tokens)
    list(opened.run([found]))
    return found.output_ids


async def collect(ticket):
    ids = [[] for _ in ticket.sequences]
    async for events in ticket.events():
        for index, token in events:
            if token is not None:
                ids[index].append(token.id)
    return ids


def engine_error(code):
    return pytest.raises(EngineError, check=lambda error: error.code == code)


@asynccontextmanager
async def started(opened, batch=None, **limits):
    limits = ServerOptions(**limits)
    engine = Engine(batch or opened.batch(limits.slots), limits)
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def test_each_sequence_equals_a_single_run(opened):
    async def check():
        async with started(opened, slots=3, queue_size=100) as engine:
            tickets = [engine.submit([sequence(opened, seed, 5 + seed)]) for seed in range(20)]
            tickets.append(engine.submit([sequence(opened, seed) for seed in (50, 51, 52, 53)]))
            return [await collect(ticket) for ticket in tickets]

    *single, several = asyncio.run(check())
    assert [came for (came,) in single] == [alone(opened, seed, 5 + seed) for seed in range(20)]
    assert several == [alone(opened, seed) for seed in (50, 51, 52, 53)]


def test_a_request_beyond_slots_and_queue_is_refused_whole(opened):
    async def check():
        async with started(opened, slots=2, queue_size=2) as engine:
            first = engine.submit([sequence(opened, seed, 3000) for seed in range(4)])
            with engine_error("busy"):
                engine.submit([sequence(opened, 9)])
            engine.cancel(first.sequences[:1])
            while engine.free < 1:
                await asyncio.sleep(0.001)
            with engine_error("busy"):
                engine.submit([sequence(opened, 9), sequence(opened, 10)])
            late = engine.submit([sequence(opened, 9)])
            engine.cancel(first.sequences)
            return await collect(late)

    assert asyncio.run(check()) == [alone(opened, 9)]


def test_waiting_and_running_have_timeouts(opened):
    async def check():
        async with started(
            opened, slots=1, queue_size=5, queue_timeout=0.2, generation_timeout=0.5
        ) as engine:
            first = engine.submit([sequence(opened, 1, 10**6)])
            second = engine.submit([sequence(opened, 2, 10**6)])
            with engine_error("timeout"):
                await collect(second)
            (came,) = await collect(first)
            third = await collect(engine.submit([sequence(opened, 3, 2)]))
            return came, first.sequences[0].finish_reason, third

    came, ended, third = asyncio.run(check())
    assert ended == "length"
    assert came == alone(opened, 1, len(came))
    assert third == [alone(opened, 3, 2)]


def test_the_engine_survives_an_error_of_the_model(opened):
    batch = opened.batch(2)
    step = batch.step
    failures = [ValueError("broken")]

    def failing():
        if failures:
            raise failures.pop()
        return step()

    batch.step = failing

    async def check():
        async with started(opened, batch, slots=2) as engine:
            with engine_error("engine"):
                await collect(engine.submit([sequence(opened, 1), sequence(opened, 2)]))
            return await collect(engine.submit([sequence(opened, 3), sequence(opened, 4)]))

    assert asyncio.run(check()) == [alone(opened, 3), alone(opened, 4)]


def test_a_sequence_without_finite_logits_fails_alone(opened, monkeypatch):
    batch = opened.batch(2)
    prefill = batch._backend.prefill

    def fail_for_one_token(texts):
        logits = prefill(texts)
        logits[[len(ids) == 1 for ids in texts.values()]] = np.nan
        return logits

    monkeypatch.setattr(batch._backend, "prefill", fail_for_one_token)

    async def check():
        async with started(opened, batch, slots=2) as engine:
            sound = engine.submit([sequence(opened, 4)])
            broken = engine.submit([sequence(opened, 3)])  # the empty prompt
            with engine_error("engine"):
                await collect(broken)
            return await collect(sound)

    assert asyncio.run(check()) == [alone(opened, 4)]


def test_stopping_ends_every_request(opened):
    async def check():
        async with started(opened, slots=1, queue_size=3) as engine:
            tickets = [engine.submit([sequence(opened, seed, 10**6)]) for seed in range(2)]
            engine.stop()
            for ticket in tickets:
                with engine_error("stopping"):
                    await collect(ticket)

    asyncio.run(check())


def test_a_stopped_engine_refuses_requests(opened):
    async def check():
        async with started(opened) as engine:
            pass
        with engine_error("stopping"):
            engine.submit([sequence(opened, 1)])

    asyncio.run(check())


def metric(client, name):
    """The value of a metric of the server."""
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_frees_its_slot(opened, stream):
    with (
        running(
            opened, ServerOptions(slots=1, queue_size=0, max_tokens=10**6, generation_timeout=600)
        ) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        body = LONG | {"stream": stream}
        with httpx.Client(base_url=address) as leaving:
            if stream:
                with leaving.stream("POST", "/v1/completions", json=body) as answer:
                    lines = answer.iter_lines()  # kept: dropping it would close the connection
                    next(lines)
                    busy = client.post("/v1/completions", json=LONG)
                    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "1")
                    assert busy.json()["error"]["type"] == "rate_limit_error"
                    assert client.get("/health").json() == {"status": "ok"}
            else:
                with pytest.raises(httpx.ReadTimeout):
                    leaving.post("/v1/completions", json=body, timeout=0.3)
        until(lambda: metric(client, "atlas_sequences_running") == 0)
        done = client.post("/v1/completions", json=LONG | {"max_tokens": 3})
        assert done.status_code == 200


@pytest.mark.slow
def test_timeouts_over_http(opened):
    limits = ServerOptions(
        slots=1, queue_size=4, max_tokens=10**6, queue_timeout=0.2, generation_timeout=4
    )
    with (
        running(opened, limits) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        client.stream("POST", "/v1/completions", json=LONG | {"stream": True}) as first,
    ):
        lines = first.iter_lines()
        next(lines)
        waiting = httpx.post(f"{address}/v1/completions", json=LONG, timeout=60)
        assert waiting.status_code == 503
        assert waiting.json()["error"]["code"] == "timeout"
        *_, last, _, done, _ = lines
        assert '"finish_reason":"length"' in last
        assert done == "data: [DONE]"


def test_metrics_count_requests_and_tokens(tokenizer):
    with (
        running(opened_model(tokenizer)) as address,
        httpx.Client(base_url=address) as client,
    ):
        client.post("/v1/completions", json=LONG | {"max_tokens": 7, "n": 2, "stream": True})
        client.post("/v1/completions", json={})
        client.get("/nothing")
        page = client.get("/metrics").text
        assert 'atlas_requests_total{path="/v1/completions",status="200"} 1.0' in page
        assert 'atlas_requests_total{path="/v1/completions",status="400"} 1.0' in page
        assert 'atlas_requests_total{path="other",status="404"} 1.0' in page
        assert 'atlas_tokens_total{kind="completion"} 14.0' in page
        assert "atlas_time_to_first_token_seconds_count 1.0" in page
        assert "process_resident_memory_bytes" in page


def test_without_prometheus_client_the_metrics_say_what_to_install(opened, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with running(opened) as address, httpx.Client(base_url=address) as client:
        done = client.post("/v1/completions", json=LONG | {"max_tokens": 2, "stream": True})
        assert done.status_code == 200
        refused = client.get("/metrics")
        assert refused.status_code == 501
        assert "pip install 'atlas[metrics]'" in refused.json()["error"]["message"]
