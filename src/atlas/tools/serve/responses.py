"""The bodies of answers, in OpenAI's form."""

import time
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import uuid4

from atlas.inference.batch import Text, Token
from atlas.tools.serve.answer import Answer, Part
from atlas.tools.serve.served import Served

Body = dict[str, Any]


class Completions:
    """Of ``/v1/completions``."""

    whole = chunk = "text_completion"

    def choice(self, served: Served, parts: Sequence[Part]) -> Body:
        """All parts of one text."""
        return {"text": "".join(part.delta for part in parts)} | self._rest(served, parts)

    def delta(self, served: Served, part: Part, *, first: bool) -> Body:
        """One part of a stream."""
        del first
        return {"text": part.delta} | self._rest(served, [part])

    def _rest(self, served: Served, parts: Sequence[Part]) -> Body:
        return {"logprobs": self._logprobs(served, parts), "finish_reason": parts[-1].finish}

    def _logprobs(self, served: Served, parts: Sequence[Part]) -> Body | None:
        told = [(part.offset, token) for part in parts if (token := _told(part)) is not None]
        if not told:
            return None
        return {
            "tokens": [served.piece(token.id) for _, token in told],
            "token_logprobs": [token.logprob for _, token in told],
            "top_logprobs": [
                {served.piece(each): logprob for each, logprob in token.alternatives}
                for _, token in told
            ],
            "text_offset": [offset for offset, _ in told],
        }


class Chat:
    """Of ``/v1/chat/completions``."""

    whole, chunk = "chat.completion", "chat.completion.chunk"

    def choice(self, served: Served, parts: Sequence[Part]) -> Body:
        """All parts of one text."""
        content = "".join(part.delta for part in parts)
        message = {"role": "assistant", "content": content, "refusal": None}
        return {"message": message} | self._rest(served, parts)

    def delta(self, served: Served, part: Part, *, first: bool) -> Body:
        """One part of a stream."""
        role = {"role": "assistant"} if first else {}
        return {"delta": role | {"content": part.delta}} | self._rest(served, [part])

    def _rest(self, served: Served, parts: Sequence[Part]) -> Body:
        content = [
            _probable(served, token.id, token.logprob)
            | {"top_logprobs": [_probable(served, *each) for each in token.alternatives]}
            for part in parts
            if (token := _told(part)) is not None
        ]
        logprobs = {"content": content, "refusal": None} if content else None
        return {"logprobs": logprobs, "finish_reason": parts[-1].finish}


Form = Completions | Chat


class Envelope:
    """What goes around the choices of one answer."""

    def __init__(self, served: Served, answer: Answer, form: Form, *, with_ids: bool) -> None:
        self._served = served
        self._answer = answer
        self._form = form
        self._with_ids = with_ids
        prefix = "cmpl" if isinstance(form, Completions) else "chatcmpl"
        self._head = {
            "id": f"{prefix}-{uuid4().hex}",
            "created": int(time.time()),
            "model": served.opened.name,
            "system_fingerprint": None,
        }
        self._begun: set[int] = set()

    def whole(self, parts: Iterable[Part]) -> Body:
        """The answer in one body."""
        by_text: dict[int, list[Part]] = {}
        for part in parts:
            by_text.setdefault(part.number, []).append(part)
        choices = [
            self._choice(number, self._form.choice(self._served, found), found, first=True)
            for number, found in sorted(by_text.items())
        ]
        return self._body(self._form.whole, choices, self.usage())

    def chunk(self, part: Part, *, with_usage: bool) -> Body:
        """One part of a stream."""
        first = part.number not in self._begun
        self._begun.add(part.number)
        choice = self._choice(
            part.number, self._form.delta(self._served, part, first=first), [part], first=first
        )
        body = self._body(self._form.chunk, [choice])
        return body | ({"usage": None} if with_usage else {})

    def last_chunk(self) -> Body:
        """The number of tokens, at the end of a stream."""
        return self._body(self._form.chunk, [], self.usage())

    def usage(self) -> dict[str, int]:
        """Numbers of tokens."""
        read, written = self._answer.prompt_tokens, self._answer.written_tokens
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }

    def _body(self, kind: str, choices: list[Body], usage: Body | None = None) -> Body:
        return (
            self._head | {"object": kind, "choices": choices} | ({"usage": usage} if usage else {})
        )

    def _choice(self, number: int, found: Body, parts: Sequence[Part], *, first: bool) -> Body:
        choice: Body = {"index": number, **found}
        if self._with_ids:
            choice["token_ids"] = [part.token.id for part in parts if part.token is not None]
            if first:
                text: Text = self._answer.texts[number]
                choice["prompt_token_ids"] = list(text.prompt)
        return choice


def _told(part: Part) -> Token | None:
    """Its token, if probabilities were asked for."""
    token = part.token
    return token if token is not None and token.logprob is not None else None


def _probable(served: Served, identity: int, logprob: float | None) -> Body:
    data = served.opened.piece_bytes(identity)
    return {
        "token": served.piece(identity),
        "logprob": logprob,
        "bytes": None if data is None else list(data),
    }
