"""Continuous batching: one thread that grows the texts of all requests over one model.

A text begins as soon as a slot is free and leaves it when it ends, whatever the others do. Event
loop and thread share nothing but two hand-overs: texts in, and after each step what came of them
out, all in one call.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from threading import Condition, Thread

from atlas.inference.batch import Batch, Text, Token
from atlas.inference.sampling import GREEDY
from atlas.tools.serve.limits import Limits
from atlas.tools.serve.metrics import Metrics

MANY = 16  # tokens that are handed over together where nobody waits for each
BEGUN_AT_ONCE = 4  # texts between two steps of those that grow, which wait for them
logger = logging.getLogger(__name__)


class Busy(Exception):  # noqa: N818 - a state, no error of ours
    """There is no room for more now."""


class WaitedTooLong(Exception):  # noqa: N818
    """No slot became free in time."""


class EngineFailed(Exception):  # noqa: N818
    """The model raised an error, which is in the log."""


class Stopping(Exception):  # noqa: N818
    """The server is being stopped."""


# A token, the end of a text, or why there is none.
News = Token | None | WaitedTooLong | EngineFailed | Stopping


class Ticket:
    """What the event loop holds of the texts of one request.

    Attributes:
        texts: that grow.
    """

    def __init__(self, texts: Sequence[Text], *, at_once: bool) -> None:
        """For some texts.

        Args:
            texts: that grow.
            at_once: whether each token is waited for; else many at a time will do.
        """
        self.texts = list(texts)
        self._enough = 1 if at_once else MANY
        self._news: list[tuple[int, Token | None]] = []
        self._failure: Exception | None = None
        self._change = asyncio.Event()

    async def events(self) -> AsyncIterator[list[tuple[int, Token | None]]]:
        """Tokens with the number of their text, as they come; None when a text has ended.

        Raises:
            WaitedTooLong: one of them got no slot in time.
            EngineFailed: the model failed.
            Stopping: the server ends.
        """
        left = len(self.texts)
        while left:
            await self._change.wait()
            self._change.clear()
            if self._failure is not None:
                raise self._failure
            news, self._news = self._news, []
            left -= sum(token is None for _, token in news)
            yield news

    def tell(self, number: int, news: News) -> None:
        """Hands over what came of a text; in the event loop."""
        if isinstance(news, Exception):
            self._failure = news
        else:
            self._news.append((number, news))
        if not isinstance(news, Token) or len(self._news) >= self._enough:
            self._change.set()


@dataclass(eq=False)
class Job:
    """A text on its way through the engine.

    Attributes:
        ticket: of its request.
        number: of the text there.
        deadline: of ``time.monotonic``, by which it must have begun, then by which it must end.
        abandoned: whether nobody wants it any more.
    """

    ticket: Ticket
    number: int
    deadline: float
    abandoned: bool = False
    text: Text = field(init=False)

    def __post_init__(self) -> None:
        self.text = self.ticket.texts[self.number]


class Engine:
    """Takes texts from the event loop, and gives their tokens back to it."""

    def __init__(self, batch: Batch, limits: Limits, metrics: Metrics) -> None:
        self._batch = batch
        self._limits = limits
        self._metrics = metrics
        self._change = Condition()  # guards what follows
        self._waiting: deque[Job] = deque()
        self._growing: dict[int, Job] = {}  # by the identity of the text
        self._stopping = False
        self._thread = Thread(target=self._work, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def works(self) -> bool:
        """Whether it takes texts."""
        return self._thread.is_alive()

    @property
    def free(self) -> int:
        """Slots that no text has, and places in the queue, less the texts that wait."""
        free = self._limits.slots - len(self._growing)
        return self._limits.queue + free - len(self._waiting)

    def start(self) -> None:
        """Begins to work for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def warm_up(self, prompt: Sequence[int]) -> None:
        """Writes two tokens that nobody gets, as what is done first takes longer."""
        for _ in self._batch.grow([Text(prompt, 2, GREEDY)]):
            pass

    def stop(self) -> None:
        """Ends the work after the step that is being computed; who waits still is told."""
        with self._change:
            self._stopping = True
            self._change.notify()
        self._thread.join()
        left = [*self._growing.values(), *self._waiting]
        self._growing.clear()
        self._waiting.clear()
        _deliver([(job, Stopping()) for job in left])

    def submit(self, texts: Sequence[Text], *, at_once: bool = True) -> Ticket:
        """Hands texts in, all or none.

        Args:
            texts: to grow.
            at_once: as in ``Ticket``.

        Raises:
            Busy: the queue has no room for them.
            Stopping: it takes no more.
            EngineFailed: it works no more.
        """
        deadline = time.monotonic() + self._limits.queue_seconds
        ticket = Ticket(texts, at_once=at_once)
        with self._change:
            if self._stopping:
                raise Stopping
            if not self.works:
                raise EngineFailed
            if len(texts) > self.free:
                raise Busy
            self._waiting.extend(Job(ticket, number, deadline) for number in range(len(texts)))
            self._change.notify()
        return ticket

    def abandon(self, texts: Sequence[Text]) -> None:
        """Frees the slots of texts that nobody wants any more; ended ones have none."""
        with self._change:
            unwanted = {id(text) for text in texts}
            for job in (*self._waiting, *self._growing.values()):
                job.abandoned = job.abandoned or id(job.text) in unwanted
            self._change.notify()

    def _work(self) -> None:
        while True:
            with self._change:
                while not (self._waiting or self._growing or self._stopping):
                    self._change.wait()
                if self._stopping:
                    return
                news = self._drop()
                begun = min(self._batch.free, len(self._waiting), BEGUN_AT_ONCE)
                new = [self._waiting.popleft() for _ in range(begun)]
                for job in new:
                    job.deadline = time.monotonic() + self._limits.seconds
                    self._growing[id(job.text)] = job
            try:
                changed = self._advance([job.text for job in new])
            except Exception:
                logger.exception("the model failed; its texts are given up")
                changed = self._give_up()
            self._metrics.busy(len(self._growing), len(self._waiting))
            self._tell(news + changed)

    def _drop(self) -> list[tuple[Job, News]]:
        """Takes out what is not wanted any more, or late."""
        now = time.monotonic()
        news: list[tuple[Job, News]] = []
        for job in [*self._growing.values(), *self._waiting]:
            if not job.abandoned and now <= job.deadline:
                continue
            if id(job.text) in self._growing:
                self._batch.remove(job.text)
                job.text.ended = "length"
                del self._growing[id(job.text)]
                news.append((job, None))
            else:
                self._waiting.remove(job)
                news.append((job, WaitedTooLong()))
        return news

    def _advance(self, new: Sequence[Text]) -> list[tuple[Job, News]]:
        """A token more for each text, the first one for new ones."""
        changed = self._batch.step() if self._batch.growing else []
        for text in new:
            self._batch.add(text)
            self._metrics.prompt_tokens(len(text.prompt))
        news: list[tuple[Job, News]] = []
        for text in (*changed, *new):
            job = self._growing[id(text)]
            if text.newest is not None:
                news.append((job, text.newest))
            if text.ended is not None:
                with self._change:
                    del self._growing[id(text)]
                news.append((job, EngineFailed() if text.ended == "failed" else None))
        self._metrics.written_tokens(sum(isinstance(each, Token) for _, each in news))
        return news

    def _give_up(self) -> list[tuple[Job, News]]:
        """Frees all slots after an error."""
        with self._change:
            jobs = list(self._growing.values())
            self._growing.clear()
        for job in jobs:
            self._batch.remove(job.text)
        return [(job, EngineFailed()) for job in jobs]

    def _tell(self, news: Sequence[tuple[Job, News]]) -> None:
        if news and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, news)


def _deliver(news: Sequence[tuple[Job, News]]) -> None:
    for job, each in news:
        job.ticket.tell(job.number, each)
