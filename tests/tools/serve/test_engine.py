"""Texts of many clients over one model: none lost, none mixed, none left behind."""

import asyncio
import math
import time

import httpx
import pytest

from atlas.inference.batch import Text
from atlas.inference.sampling import Sampling
from atlas.tools.serve.engine import Busy, Engine, EngineFailed, Stopping, WaitedTooLong
from atlas.tools.serve.limits import Limits
from atlas.tools.serve.metrics import Metrics
from tests.tools.serve.live import opened_model, running


def text_of(opened, seed, tokens=20):
    prompts = ("the lamp", "one", "a red stone", "")
    sampling = Sampling(temperature=1, top_k=0, top_p=1, seed=seed)
    return Text(opened.encode(prompts[seed % 4]), tokens, sampling)


def alone(opened, seed, tokens=20):
    text = text_of(opened, seed, tokens)
    list(opened.continue_all([text]))
    return text.written


async def collected(ticket):
    came = [[] for _ in ticket.texts]
    async for events in ticket.events():
        for number, token in events:
            if token is not None:
                came[number].append(token.id)
    return came


class Started:
    """An engine that works within a block."""

    def __init__(self, opened, batch=None, **limits):
        self.limits = Limits(**limits)
        self.engine = Engine(batch or opened.batch(self.limits.slots), self.limits, Metrics())

    async def __aenter__(self):
        self.engine.start()
        return self.engine

    async def __aexit__(self, *_):
        self.engine.stop()


def test_each_text_is_what_it_is_alone(opened):
    async def check():
        async with Started(opened, slots=3, queue=100) as engine:
            tickets = [engine.submit([text_of(opened, seed, 5 + seed)]) for seed in range(20)]
            tickets.append(engine.submit([text_of(opened, seed) for seed in (50, 51, 52, 53)]))
            return [await collected(ticket) for ticket in tickets]

    *single, several = asyncio.run(check())
    assert [came for (came,) in single] == [alone(opened, seed, 5 + seed) for seed in range(20)]
    assert several == [alone(opened, seed) for seed in (50, 51, 52, 53)]


def test_more_than_slots_and_queue_are_refused_all_or_none(opened):
    async def check():
        async with Started(opened, slots=2, queue=2) as engine:
            first = engine.submit([text_of(opened, seed, 3000) for seed in range(4)])
            with pytest.raises(Busy):
                engine.submit([text_of(opened, 9)])
            engine.abandon(first.texts[:1])
            while engine.free < 1:
                await asyncio.sleep(0.001)
            with pytest.raises(Busy):
                engine.submit([text_of(opened, 9), text_of(opened, 10)])
            late = engine.submit([text_of(opened, 9)])
            engine.abandon(first.texts)
            return await collected(late)

    assert asyncio.run(check()) == [alone(opened, 9)]


def test_who_waits_too_long_is_told(opened):
    async def check():
        async with Started(opened, slots=1, queue=5, queue_seconds=0.2, seconds=0.5) as engine:
            first = engine.submit([text_of(opened, 1, 10**6)])
            second = engine.submit([text_of(opened, 2, 10**6)])
            with pytest.raises(WaitedTooLong):
                await collected(second)
            (came,) = await collected(first)
            third = await collected(engine.submit([text_of(opened, 3)]))
            return came, first.texts[0].ended, third

    came, ended, third = asyncio.run(check())
    assert ended == "length"
    assert came == alone(opened, 1, len(came))
    assert third == [alone(opened, 3)]


def test_what_fails_is_told_and_the_engine_goes_on(opened):
    batch = opened.batch(2)
    step = batch.step
    failures = [ValueError("broken")]

    def failing():
        if failures:
            raise failures.pop()
        return step()

    batch.step = failing

    async def check():
        async with Started(opened, batch, slots=2) as engine:
            with pytest.raises(EngineFailed):
                await collected(engine.submit([text_of(opened, 1), text_of(opened, 2)]))
            return await collected(engine.submit([text_of(opened, 3), text_of(opened, 4)]))

    assert asyncio.run(check()) == [alone(opened, 3), alone(opened, 4)]


def test_a_text_without_numbers_fails_alone(opened, monkeypatch):
    batch = opened.batch(2)
    begin = batch._slots.begin
    monkeypatch.setattr(
        batch._slots,
        "begin",
        lambda slot, ids: begin(slot, ids) * (math.nan if len(ids) == 1 else 1),
    )

    async def check():
        async with Started(opened, batch, slots=2) as engine:
            sound = engine.submit([text_of(opened, 4)])
            broken = engine.submit([text_of(opened, 3)])  # the empty prompt
            with pytest.raises(EngineFailed):
                await collected(broken)
            return await collected(sound)

    assert asyncio.run(check()) == [alone(opened, 4)]


def test_who_waits_is_told_that_the_engine_stops(opened):
    async def check():
        async with Started(opened, slots=1, queue=3) as engine:
            tickets = [engine.submit([text_of(opened, seed, 10**6)]) for seed in range(2)]
            engine.stop()
            for ticket in tickets:
                with pytest.raises(Stopping):
                    await collected(ticket)

    asyncio.run(check())


def test_a_stopped_engine_takes_nothing(opened):
    async def check():
        async with Started(opened) as engine:
            pass
        with pytest.raises(Stopping):
            engine.submit([text_of(opened, 1)])

    asyncio.run(check())


LONG = {"model": "small", "prompt": "the", "max_tokens": 10**6, "seed": 1}


def counted(client, name):
    """The value of a metric of the server."""
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_slot(opened, stream):
    with (
        running(opened, Limits(slots=1, queue=0, tokens=10**6, seconds=600)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        asked = LONG | {"stream": stream}
        with httpx.Client(base_url=address) as leaving:
            if stream:
                with leaving.stream("POST", "/v1/completions", json=asked) as answer:
                    lines = answer.iter_lines()  # held, as the client hangs up without it
                    next(lines)
                    busy = client.post("/v1/completions", json=LONG)
                    assert (busy.status_code, busy.headers["Retry-After"]) == (429, "1")
                    assert busy.json()["error"]["type"] == "rate_limit_error"
            else:
                with pytest.raises(httpx.ReadTimeout):
                    leaving.post("/v1/completions", json=asked, timeout=0.3)
        until(lambda: counted(client, "atlas_texts_growing") == 0)
        done = client.post("/v1/completions", json=LONG | {"max_tokens": 3})
        assert done.status_code == 200


def test_time_is_limited(opened):
    limits = Limits(slots=1, queue=4, tokens=10**6, queue_seconds=0.2, seconds=4)
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


def test_metrics_count_what_was_done(tokenizer):
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
        assert 'atlas_tokens_total{kind="written"} 14.0' in page
        assert "atlas_first_token_seconds_count 1.0" in page
        assert "process_resident_memory_bytes" in page
