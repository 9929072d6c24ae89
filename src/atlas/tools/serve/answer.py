"""The texts of one request, from ids in the engine to parts of text, as they come."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request

from atlas.inference.batch import Text, Token
from atlas.inference.text_stream import TextStream
from atlas.tools.serve.errors import RequestError
from atlas.tools.serve.served import Served

CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it but the counters
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """What came of a text in one step.

    Attributes:
        number: of the text.
        token: that was picked; None where the text ends without one.
        offset: characters that came before.
        delta: text that may be shown now.
        finish: why the text has ended; None while it grows.
    """

    number: int
    token: Token | None
    offset: int
    delta: str
    finish: str | None


class Answer:
    """The texts of a request.

    Attributes:
        texts: that grow in the engine.
        prompt_tokens: read for them, copies of a prompt counted once.
        written_tokens: that have come of all texts, the one with a stop string too.
    """

    def __init__(
        self, served: Served, texts: Sequence[Text], stops: Sequence[str], *, streamed: bool
    ) -> None:
        """Hands the texts to the engine.

        Args:
            served: the model.
            texts: to grow.
            stops: strings before which they end.
            streamed: whether each token is waited for.

        Raises:
            Busy: there is no room for them.
        """
        self.texts = texts
        self.prompt_tokens = sum({id(text.prompt): len(text.prompt) for text in texts}.values())
        self._served = served
        self._streamed = streamed
        self._shown = [TextStream(served.opened.decode, text.prompt, stops) for text in texts]
        self._offsets = [0] * len(texts)
        self._finished: set[int] = set()
        self.written_tokens = 0
        self._started = time.monotonic()
        self._ticket = served.engine.submit(texts, at_once=streamed)

    async def parts(self) -> AsyncIterator[list[Part]]:
        """All parts, as many at a time as there are; the last of a text says why it ended.

        Raises:
            WaitedTooLong: a text got no slot in time.
            EngineFailed: the model failed.
        """
        first = True
        async for events in self._ticket.events():
            if first and self._streamed:
                self._served.metrics.first_token(time.monotonic() - self._started)
                first = False
            parts: list[Part] = []
            for number, token in events:  # one after the other, as a part may be the last
                if number not in self._finished:
                    parts.append(self._part(number, token))
            if parts:
                yield parts
            if len(self._finished) == len(self.texts):
                return

    def _part(self, number: int, token: Token | None) -> Part:
        shown, offset = self._shown[number], self._offsets[number]
        delta = shown.end() if token is None else shown.feed(token.id)
        self.written_tokens += token is not None
        finish = None
        if shown.stopped:
            finish = "stop"
            self._served.engine.abandon([self.texts[number]])
        elif token is None:
            finish = self.texts[number].ended
        if finish is not None:
            self._finished.add(number)
        self._offsets[number] += len(delta)
        return Part(number, token, offset, delta, finish)

    def abandon(self) -> None:
        """Frees what is still growing."""
        self._served.engine.abandon(self.texts)


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Waits for some work, but not for a client that hangs up.

    Raises:
        RequestError: it has hung up.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_has_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise RequestError(CLIENT_CLOSED_REQUEST, "the client hung up")
    finally:
        working.cancel()
        leaving.cancel()


async def _has_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
