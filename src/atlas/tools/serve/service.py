"""The served model: checks each request, then generates its sequences."""

import csv
import math
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import Token, TokenSequence
from atlas.inference.text_stream import TextStream
from atlas.tools.serve.engine import Engine, Limits
from atlas.tools.serve.errors import APIError
from atlas.tools.serve.metrics import Metrics
from atlas.tools.serve.schemas import ChatRequest, CompletionRequest, Delta

SEEDS = 2**64
MAX_CURVE_POINTS = 500


@dataclass(frozen=True)
class ModelService:
    """A model with everything its requests need."""

    model: LoadedModel
    engine: Engine
    limits: Limits
    metrics: Metrics | None
    started: int  # seconds since the epoch
    metrics_folder: Path | None = None  # of the project that trained the model, for its curves

    def describe(self) -> dict[str, Any]:
        """Describe the model for the page."""
        return {
            "name": self.model.name,
            "engine": self.model.engine,
            "context_length": self.model.context_length,
            "vocab_size": self.model.vocab_size,
            "has_attention": self.model.has_attention,
            "max_tokens": self.limits.max_tokens,
            "curves": load_curves(self.metrics_folder),
        }

    def sequences(self, request: CompletionRequest | ChatRequest) -> list[TokenSequence]:
        """Return the sequences to generate, ``n`` for each prompt, with consecutive seeds."""
        self._check(request)
        seed = secrets.randbits(32) if request.seed is None else request.seed
        samplings = [request.sampling((seed + i) % SEEDS) for i in range(request.n or 1)]
        return [
            TokenSequence(prompt, request.token_limit, sampling, request.alternatives)
            for prompt in self._encode(request)
            for sampling in samplings
        ]

    def check_ids(self, ids: Sequence[int], param: str) -> None:
        """Reject ids outside the vocabulary, or more ids than the context holds."""
        last, context = self.model.vocab_size - 1, self.model.context_length
        if max(ids) > last:
            raise _invalid(param, f"{max(ids)} is not a token id; ids go from 0 to {last}")
        if len(ids) > context:
            message = f"{len(ids)} tokens; the context length is {context}"
            raise _invalid(param, message, code="context_length_exceeded")

    def unknown_model(self, name: str) -> APIError:
        """Return the error for a request that names another model."""
        message = f"model {name!r} not found; this server has {self.model.name!r}"
        return APIError(404, message, param="model", code="model_not_found")

    def _check(self, request: CompletionRequest | ChatRequest) -> None:
        """Reject a request early if its options alone are invalid."""
        limits, tokens, stops = self.limits, request.token_limit, request.stop_strings()
        prompts = 1 if isinstance(request, ChatRequest) else len(request.prompts())
        count = prompts * (request.n or 1)
        max_count = min(limits.max_sequences, limits.slots + limits.queue_size)
        longest = limits.max_stop_length
        if request.model != self.model.name:
            raise self.unknown_model(request.model)
        if tokens > limits.max_tokens:
            raise _invalid("max_tokens", f"{tokens}; at most {limits.max_tokens}")
        if count > max_count:
            raise _invalid("n", f"{count} sequences; at most {max_count} per request")
        if len(stops) > limits.max_stops:
            raise _invalid("stop", f"{len(stops)} strings; at most {limits.max_stops}")
        if not all(0 < len(stop) <= longest for stop in stops):
            raise _invalid("stop", f"must have 1 to {longest} characters")
        if request.logit_bias:
            self.check_ids([max(request.logit_bias)], "logit_bias")

    def _encode(self, request: CompletionRequest | ChatRequest) -> list[list[int]]:
        if isinstance(request, ChatRequest):
            if request.top_logprobs is not None and not request.logprobs:
                raise _invalid("top_logprobs", "needs logprobs: true")
            messages = [message.for_template() for message in request.messages]
            prompts, param = [self.model.encode_chat(messages)], "messages"
        else:
            encode, param = self.model.encode, "prompt"
            prompts = [encode(p) if isinstance(p, str) else p for p in request.prompts()]
        for ids in prompts:
            self.check_ids(ids, param)
        return prompts


def _invalid(param: str, message: str, code: str | None = None) -> APIError:
    return APIError(400, f"{param}: {message}", param=param, code=code)


class Generation:
    """The running sequences of one request, decoded to text."""

    def __init__(
        self,
        service: ModelService,
        sequences: Sequence[TokenSequence],
        stops: Sequence[str],
        *,
        stream: bool,
    ) -> None:
        self._sequences = sequences
        self._engine = service.engine
        self._metrics = service.metrics if stream else None
        self._texts = [TextStream(service.model.decode, each.prompt, stops) for each in sequences]
        self._offsets = [0] * len(sequences)
        self._finished: set[int] = set()
        self._completion_tokens = 0
        self._submitted = time.monotonic()
        self._ticket = service.engine.submit(sequences, stream=stream)

    async def deltas(self) -> AsyncIterator[list[Delta]]:
        """Yield all deltas, grouped by arrival; the last of a sequence has a finish reason."""
        async for events in self._ticket.events():
            if self._metrics is not None:
                self._metrics.first_token.observe(time.monotonic() - self._submitted)
                self._metrics = None
            deltas: list[Delta] = []
            for index, token in events:  # a plain loop, as a delta may finish its sequence
                if index not in self._finished:
                    deltas.append(self._delta(index, token))
            if deltas:
                yield deltas
            if len(self._finished) == len(self._sequences):
                return

    def usage(self) -> dict[str, int]:
        """Count tokens; a prompt counts once, whatever ``n`` is."""
        prompts = {id(each.prompt): len(each.prompt) for each in self._sequences}
        prompt_tokens = sum(prompts.values())
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt_tokens + self._completion_tokens,
        }

    def cancel(self) -> None:
        """Free the slots of unfinished sequences."""
        self._engine.cancel(self._sequences)

    def _delta(self, index: int, token: Token | None) -> Delta:
        stream, sequence, offset = self._texts[index], self._sequences[index], self._offsets[index]
        text = stream.flush() if token is None else stream.feed(token.id)
        self._completion_tokens += token is not None
        self._offsets[index] += len(text)
        finish_reason = None
        if stream.stopped:
            finish_reason = "stop"
            self._engine.cancel([sequence])
        elif token is None:
            finish_reason = sequence.finish_reason
        if finish_reason is not None:
            self._finished.add(index)
        return Delta(index, token, offset, text, finish_reason)


def load_curves(metrics: Path | None) -> dict[str, list[list[float]]]:
    """Read the [step, loss] points of a training run, at most ``MAX_CURVE_POINTS`` a curve."""
    if metrics is None:
        return {}
    curves = {
        "train": _load_curve(metrics / "train.csv", "loss"),
        "train_average": _load_curve(metrics / "train.csv", "loss_average"),
        "val": _load_curve(metrics / "val.csv", "loss"),
    }
    return {name: points for name, points in curves.items() if points}


def _load_curve(path: Path, column: str) -> list[list[float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            points = [[float(row["step"]), float(row[column])] for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError):
        return []
    points = [point for point in points if math.isfinite(point[1])]
    stride = -(-len(points) // MAX_CURVE_POINTS) or 1
    return points[::stride]
