"""Continuous batching: one thread generates the sequences of all requests over one model.

A sequence starts as soon as a slot is free and leaves it when it ends, whatever the others do. The
event loop and the thread exchange data in two places only: new sequences go in under a lock, and
after each step all results come out in one call.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Condition, Thread

from atlas.inference.batch import Overflow, RunningBatch, Token, TokenSequence
from atlas.tools.serve.schemas import EngineError

TOKENS_PER_WAKEUP = 16  # of a request that is not streamed
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)
MAX_PREFILLS = 4  # per step: running sequences wait while prompts are read
logger = logging.getLogger(__name__)
Event = Token | None | EngineError  # a token, the end of a sequence, or the reason for a failure


@dataclass(frozen=True)
class ServerOptions:
    """Options of a server; comments on limits give the HTTP status of requests that exceed them."""

    key: str | None = None  # that clients must send; None if they need none
    hosts: tuple[str, ...] | None = None  # allowed host names; None for all
    metrics_folder: Path | None = None  # of the project that trained the model, for the page
    examples: tuple[str, ...] = ()  # prompts that the page offers
    on_overflow: Overflow = "slide"
    slots: int = 16  # sequences generated at the same time; more wait
    queue_size: int = 64  # sequences waiting for a slot; 429
    queue_timeout: float = 30.0  # seconds a sequence may wait; 503
    generation_timeout: float = 120.0  # seconds a sequence may run; it ends with its latest token
    max_tokens: int = 4096  # of one sequence, without its prompt; 400
    max_sequences: int = 16  # of one request: prompts times n; 400
    max_stops: int = 16  # stop strings of one request; 400
    max_stop_length: int = 256  # characters of a stop string; 400
    max_body_bytes: int = 1 << 18  # of one request; 413
    header_timeout: float = 10.0  # seconds for the headers of a request to arrive; 408
    body_timeout: float = 10.0  # seconds for the body to arrive; 408
    reader_timeout: float = 30.0  # seconds in which a client reads nothing; it is disconnected
    max_connections: int = 512  # the one that has waited longest for its client is closed
    max_connections_per_client: int = 256  # of one address; high, as a proxy has only one


class Metrics:
    """Metrics of one server for Prometheus, an extra: ``pip install 'atlas[metrics]'``."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        registry = prometheus.CollectorRegistry()
        prometheus.ProcessCollector(registry=registry)
        counter = partial(prometheus.Counter, registry=registry)
        gauge = partial(prometheus.Gauge, registry=registry)
        histogram = partial(prometheus.Histogram, registry=registry, buckets=SECONDS)
        self.responses = counter("atlas_requests", "Responses.", ("path", "status"))
        self.tokens = counter("atlas_tokens", "Prompt and completion tokens.", ("kind",))
        self.running = gauge("atlas_sequences_running", "Sequences being generated.")
        self.waiting = gauge("atlas_sequences_waiting", "Sequences waiting for a slot.")
        self.first_token = histogram("atlas_time_to_first_token_seconds", "Of streamed requests.")
        self.duration = histogram("atlas_request_seconds", "To the end of a response.", ("path",))
        self.render = partial(prometheus.generate_latest, registry)  # in Prometheus' text format


class Ticket:
    """The event loop's side of one request: receives the events of its sequences."""

    def __init__(self, sequences: Sequence[TokenSequence], *, stream: bool) -> None:
        self.sequences = list(sequences)
        self._min_events = 1 if stream else TOKENS_PER_WAKEUP
        self._events: list[tuple[int, Token | None]] = []
        self._failure: EngineError | None = None
        self._changed = asyncio.Event()

    async def events(self) -> AsyncIterator[list[tuple[int, Token | None]]]:
        """Yield tokens with the index of their sequence; None marks the end of a sequence."""
        running = len(self.sequences)
        while running:
            await self._changed.wait()
            self._changed.clear()
            if self._failure is not None:
                raise self._failure
            events, self._events = self._events, []
            running -= sum(token is None for _, token in events)
            yield events

    def put(self, index: int, event: Event) -> None:
        """Add an event; called in the event loop."""
        if isinstance(event, EngineError):
            self._failure = event
        else:
            self._events.append((index, event))
        if not isinstance(event, Token) or len(self._events) >= self._min_events:
            self._changed.set()


@dataclass(eq=False)
class Job:
    """One sequence in the engine."""

    ticket: Ticket
    index: int  # of the sequence in its ticket
    sequence: TokenSequence
    deadline: float  # on the clock of time.monotonic(): to start by, then to end by
    cancelled: bool = False


class Engine:
    """Generates sequences in a thread and passes their tokens to an event loop."""

    def __init__(
        self, batch: RunningBatch, options: ServerOptions, metrics: Metrics | None = None
    ) -> None:
        self._batch, self._options, self._metrics = batch, options, metrics
        self._changed = Condition()  # guards the next three
        self._waiting: deque[Job] = deque()
        self._running: dict[int, Job] = {}  # by id() of the sequence
        self._stopping = False
        self._thread = Thread(target=self._run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    @property
    def free(self) -> int:
        """Number of sequences that can be submitted now."""
        capacity = self._options.slots + self._options.queue_size
        return capacity - len(self._running) - len(self._waiting)

    def start(self) -> None:
        """Start the thread; tokens go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current step; unfinished requests get an error."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        unfinished = [*self._running.values(), *self._waiting]
        self._running.clear()
        self._waiting.clear()
        _deliver([(job, EngineError("stopping")) for job in unfinished])

    def submit(self, sequences: Sequence[TokenSequence], *, stream: bool = True) -> Ticket:
        """Queue all sequences of a request, or none; ``stream`` delivers every token at once."""
        deadline = time.monotonic() + self._options.queue_timeout
        ticket = Ticket(sequences, stream=stream)
        with self._changed:
            if self._stopping:
                raise EngineError("stopping")
            if not self.is_alive:
                raise EngineError("engine")
            if len(sequences) > self.free:
                raise EngineError("busy")
            numbered = enumerate(sequences)
            self._waiting.extend(Job(ticket, index, each, deadline) for index, each in numbered)
            self._changed.notify()
        return ticket

    def cancel(self, sequences: Sequence[TokenSequence]) -> None:
        """Free the slots of sequences; finished ones are ignored."""
        with self._changed:
            cancelled = {id(sequence) for sequence in sequences}
            for job in (*self._waiting, *self._running.values()):
                job.cancelled = job.cancelled or id(job.sequence) in cancelled
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._running or self._stopping)
                if self._stopping:
                    return
                events = self._remove_expired()
                started = self._start_waiting()
            try:
                events += self._step(started)
            except Exception:
                logger.exception("the model failed; its running sequences are dropped")
                events += self._fail_running()
            if self._metrics is not None:
                prompts = sum(len(sequence.prompt) for sequence in started)
                completions = sum(isinstance(event, Token) for _, event in events)
                self._metrics.tokens.labels("prompt").inc(prompts)
                self._metrics.tokens.labels("completion").inc(completions)
                self._metrics.running.set(len(self._running))
                self._metrics.waiting.set(len(self._waiting))
            if events and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(_deliver, events)

    def _remove_expired(self) -> list[tuple[Job, Event]]:
        """Remove cancelled jobs and those past their deadline."""
        now = time.monotonic()
        events: list[tuple[Job, Event]] = []
        jobs = [*self._running.values(), *self._waiting]
        for job in (each for each in jobs if each.cancelled or now > each.deadline):
            if id(job.sequence) in self._running:
                self._batch.remove(job.sequence)
                job.sequence.finish_reason = "length"
                del self._running[id(job.sequence)]
                events.append((job, None))
            else:
                self._waiting.remove(job)
                events.append((job, EngineError("timeout")))
        return events

    def _start_waiting(self) -> list[TokenSequence]:
        """Move jobs from the queue to free slots, oldest first."""
        count = min(self._batch.free_slots, len(self._waiting), MAX_PREFILLS)
        jobs = [self._waiting.popleft() for _ in range(count)]
        for job in jobs:
            job.deadline = time.monotonic() + self._options.generation_timeout
            self._running[id(job.sequence)] = job
        return [job.sequence for job in jobs]

    def _step(self, started: Sequence[TokenSequence]) -> list[tuple[Job, Event]]:
        """Add one token to each running sequence, then read the prompts of started ones."""
        changed = self._batch.step()
        self._batch.add(started)
        events: list[tuple[Job, Event]] = []
        for sequence in (*changed, *started):
            job = self._running[id(sequence)]
            if sequence.last_token is not None:
                events.append((job, sequence.last_token))
            if sequence.finish_reason is not None:
                with self._changed:
                    del self._running[id(sequence)]
                failed = sequence.finish_reason == "failed"
                events.append((job, EngineError("engine") if failed else None))
        return events

    def _fail_running(self) -> list[tuple[Job, Event]]:
        """Free all slots after an error."""
        with self._changed:
            jobs = list(self._running.values())
            self._running.clear()
        for job in jobs:
            self._batch.remove(job.sequence)
        return [(job, EngineError("engine")) for job in jobs]


def _deliver(events: Sequence[tuple[Job, Event]]) -> None:
    for job, event in events:
        job.ticket.put(job.index, event)
