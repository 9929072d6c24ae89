"""Routes of OpenAI's API and of the web page.

Each completion request is checked, generated, and sent in one response or as a stream.
"""

import asyncio
import functools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import Token, TokenSequence, visible_tokens
from atlas.inference.text_stream import IncrementalDecoder, TextStream
from atlas.tools.serve.engine import Engine, Metrics, ServerOptions
from atlas.tools.serve.project import load_curves, load_heads
from atlas.tools.serve.schemas import (
    APIError,
    AttentionRequest,
    Body,
    ChatRequest,
    CompletionRequest,
    EngineError,
    ErrorResponse,
)

Responses = dict[int | str, dict[str, Any]]
ERROR_STATUSES = (400, 401, 404, 408, 413, 429, 500, 501, 503)
ERRORS: Responses = {status: {"model": ErrorResponse} for status in ERROR_STATUSES}
EVENT_STREAM = "text/event-stream"
STREAMED: Responses = {200: {"content": {EVENT_STREAM: {}}}}
SEEDS = 2**64
CLIENT_CLOSED_REQUEST = 499  # nginx's code; only the metrics see it
DESCRIBED = ("name", "engine", "context_length", "vocab_size", "has_attention")  # on the page
T = TypeVar("T")


@dataclass(frozen=True)
class ModelService:
    """A model with everything its requests need."""

    model: LoadedModel
    engine: Engine
    options: ServerOptions
    metrics: Metrics | None

    def sequences(self, request: CompletionRequest | ChatRequest) -> list[TokenSequence]:
        """Return the sequences to generate, ``n`` for each prompt, with consecutive seeds."""
        self._check(request)
        seed = secrets.randbits(32) if request.seed is None else request.seed
        samplings = [request.sampling((seed + i) % SEEDS) for i in range(request.n or 1)]
        return [
            TokenSequence(
                prompt,
                request.token_limit,
                sampling,
                request.alternatives,
                sampling_probs=request.return_sampling_probs,
                score_prompt=request.echoes and request.alternatives is not None,
            )
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
        limits, tokens, stops = self.options, request.token_limit, request.stop_strings()
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
            if request.top_logprobs and not request.logprobs:
                raise _invalid("top_logprobs", "needs logprobs: true")
            messages = [message.for_template() for message in request.messages]
            prompts, param = [self.model.encode_chat(messages)], "messages"
        else:
            encode, param = self.model.encode, "prompt"
            prompts = [encode(p) if isinstance(p, str) else p for p in request.prompts()]
        for ids in prompts:
            self.check_ids(ids, param)
            self.model.check_prompt(ids)
        return prompts


def _invalid(param: str, message: str, code: str = "") -> APIError:
    return APIError(400, f"{param}: {message}", param=param, code=code)


@dataclass(frozen=True)
class Delta:
    """A token of one sequence with its text, or the end of the sequence."""

    index: int  # of the sequence
    token: Token | None  # None if the sequence ended without a new token
    offset: int  # characters of the sequence before the token
    text: str  # complete characters; empty while they may be part of a stop string
    finish_reason: str | None  # "stop" or "length"; None while the sequence runs
    in_completion: bool = True  # False for tokens of the prompt, and for the one that ends a text


class Completions:
    """The running sequences of one request, decoded to text in OpenAI's response bodies."""

    def __init__(self, service: ModelService, request: CompletionRequest | ChatRequest) -> None:
        model, stops = service.model, request.stop_strings()
        self._request, self._engine, self._metrics = request, service.engine, service.metrics
        self._decode = model.decode
        self._piece, self._piece_bytes = functools.cache(model.piece), model.piece_bytes
        self._kind = "chat.completion" if isinstance(request, ChatRequest) else "text_completion"
        self._sequences = service.sequences(request)
        self._texts = [TextStream(model.decode, each.prompt, stops) for each in self._sequences]
        self._offsets = [0] * len(self._sequences)
        self._prompts = [] if isinstance(request, ChatRequest) else request.prompts()
        self._echoes = set(range(len(self._sequences)) if request.echoes else ())  # still to come
        self._started: set[int] = set()
        self._finished: set[int] = set()
        self._completion_tokens = 0
        self._header = {
            "id": f"{'chatcmpl' if isinstance(request, ChatRequest) else 'cmpl'}-{uuid4().hex}",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": None,
        }
        self._submitted = time.monotonic()
        self._ticket = self._engine.submit(self._sequences, stream=bool(request.stream))

    async def response(self) -> Body:
        """Generate all sequences and return the complete response."""
        deltas: list[list[Delta]] = [[] for _ in self._sequences]
        async for group in self._deltas():
            for each in group:
                deltas[each[0].index] += each
        choices = []
        for each in deltas:
            choices.append(self._choice(each, "message"))
            await asyncio.sleep(0)  # so that others may run: a long prompt takes a while
        return self._body(self._kind, choices, usage=self._usage())

    async def events(self) -> AsyncIterator[bytes]:
        """Yield chunks as they are generated; errors after the first chunk are sent, not raised."""
        options = self._request.stream_options
        include_usage = options is not None and options.include_usage
        more = {"usage": None} if include_usage else {}
        kind = self._kind.replace("chat.completion", "chat.completion.chunk")
        try:
            async for group in self._deltas():
                choices = [self._choice(each, "delta") for each in group]
                yield b"".join(_event(self._body(kind, [each], **more)) for each in choices)
            if include_usage:
                yield _event(self._body(kind, [], usage=self._usage()))
        except APIError as error:
            if not self._started:
                raise
            yield _event(error.body())
        yield b"data: [DONE]\n\n"

    def cancel(self) -> None:
        """Free the slots of unfinished sequences."""
        self._engine.cancel(self._sequences)

    async def _deltas(self) -> AsyncIterator[list[list[Delta]]]:
        """Yield all deltas, grouped by arrival, then by sequence.

        A prompt that is returned comes first. The last delta of a sequence has a finish reason.
        """
        async for events in self._ticket.events():
            if self._metrics and self._request.stream and not self._started:
                self._metrics.first_token.observe(time.monotonic() - self._submitted)
            deltas: list[list[Delta]] = []
            for index, token in events:  # a plain loop, as a delta may finish its sequence
                if index not in self._finished:
                    prompt = self._prompt(index) if index in self._echoes else []
                    deltas.append([*prompt, *self._new(index, token)])
                    self._echoes.discard(index)
                    if prompt:
                        await asyncio.sleep(0)  # so that others may run
            if deltas:
                yield deltas
            if len(self._finished) == len(self._sequences):
                return

    def _prompt(self, index: int) -> list[Delta]:
        """Return the prompt of a sequence, without the blank that some tokenizers put first."""
        sequence, decoder = self._sequences[index], IncrementalDecoder(self._decode, [])
        texts = [decoder.feed(each) for each in sequence.prompt]
        texts[-1] += decoder.flush()
        whole, given = "".join(texts), self._prompts[index // (self._request.n or 1)]
        added = len(whole) - len(given) if isinstance(given, str) and whole.endswith(given) else 0
        tokens = sequence.scored_prompt or [Token(each) for each in sequence.prompt]
        deltas = []
        for token, text in zip(tokens, texts, strict=True):
            shown, added = text[added:], max(0, added - len(text))
            offset = self._offsets[index]
            deltas.append(Delta(index, token, offset, shown, None, in_completion=False))
            self._offsets[index] += len(shown)
        return deltas

    def _new(self, index: int, token: Token | None) -> list[Delta]:
        stream, sequence, offset = self._texts[index], self._sequences[index], self._offsets[index]
        text = stream.flush() if token is None else stream.feed(token.id)
        self._completion_tokens += token is not None
        self._offsets[index] += len(text)
        finish_reason = None
        if stream.found_stop:
            finish_reason = "stop"
            self._engine.cancel([sequence])
        elif token is None:
            finish_reason = sequence.finish_reason
        if finish_reason is not None:
            self._finished.add(index)
        deltas = [Delta(index, token, offset, text, finish_reason)]
        if token is None and sequence.end_token and self._request.echoes:
            end = self._offsets[index]
            deltas += [
                Delta(index, sequence.end_token, end, "", finish_reason, in_completion=False)
            ]
        return deltas

    def _body(self, kind: str, choices: list[Body], **more: Body | None) -> Body:
        return self._header | {"object": kind, "choices": choices} | more

    def _usage(self) -> dict[str, int]:
        """Count tokens; a prompt counts once, whatever ``n`` is."""
        prompts = {id(each.prompt): len(each.prompt) for each in self._sequences}
        prompt_tokens = sum(prompts.values())
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self._completion_tokens,
            "total_tokens": prompt_tokens + self._completion_tokens,
        }

    def _choice(self, deltas: Sequence[Delta], key: Literal["message", "delta"]) -> Body:
        """Format deltas of one sequence: all of them as a message, or those of one chunk."""
        index = deltas[0].index
        first = index not in self._started
        self._started.add(index)
        text = "".join(delta.text for delta in deltas)
        tokens = [delta.token for delta in deltas if delta.token]
        offsets = [delta.offset for delta in deltas if delta.token]
        choice: Body = {"index": index, "finish_reason": deltas[-1].finish_reason}
        if isinstance(self._request, ChatRequest):
            role = {"role": "assistant"} if first else {}
            refusal = {"refusal": None} if key == "message" else {}
            choice[key] = role | {"content": text} | refusal
        else:
            choice["text"] = text
        scored = tokens and self._request.alternatives is not None
        choice["logprobs"] = self._logprobs(tokens, offsets) if scored else None
        if scored and self._request.return_sampling_probs:
            choice["sampling_probs"] = [self._sampling_probs(token) for token in tokens]
        if self._request.return_token_ids:
            new = [delta.token for delta in deltas if delta.in_completion]
            choice["token_ids"] = [token.id for token in new if token]
            if first:
                choice["prompt_token_ids"] = list(self._sequences[index].prompt)
        return choice

    def _logprobs(self, tokens: Sequence[Token], offsets: Sequence[int]) -> Body:
        if isinstance(self._request, ChatRequest):
            content = [
                self._scored(token.id, token.logprob)
                | {"top_logprobs": [self._scored(*each) for each in token.top_logprobs]}
                for token in tokens
            ]
            return {"content": content, "refusal": None}
        return {
            "tokens": [self._piece(token.id) for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [self._top_logprobs(token) for token in tokens],
            "text_offset": offsets,
        }

    def _sampling_probs(self, token: Token) -> dict[str, float] | None:
        """Return the sampler's probabilities of a new token and its alternatives."""
        if not token.sampling_probs:
            return None
        ids = [token.id, *(each for each, _ in token.top_logprobs)]
        pairs = [*zip(map(self._piece, ids), token.sampling_probs, strict=True)]
        return dict(reversed(pairs))  # of equal pieces, the token or the most probable id counts

    def _top_logprobs(self, token: Token) -> dict[str, float] | None:
        """Return the most likely pieces; of equal ones, the first counts."""
        if token.logprob is None:
            return None
        top: dict[str, float] = {}
        for each, logprob in token.top_logprobs:
            top.setdefault(self._piece(each), logprob)
        return top

    def _scored(self, token: int, logprob: float | None) -> Body:
        data = self._piece_bytes(token)
        bytes_ = None if data is None else list(data)
        return {"token": self._piece(token), "logprob": logprob, "bytes": bytes_}


def _event(body: Body) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def create_router(service: ModelService) -> APIRouter:
    """Create all routes that need the model."""
    api = APIRouter(responses=ERRORS)
    model = service.model
    model_object = {
        "id": model.name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "atlas",
        "max_model_len": model.context_length,
    }

    @api.get("/health")
    async def health() -> dict[str, str]:
        """Check that the engine runs."""
        if not service.engine.is_alive:
            raise EngineError("engine")
        return {"status": "ok"}

    @api.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return metrics for Prometheus."""
        if service.metrics is None:
            message = "metrics need prometheus-client: pip install 'atlas[metrics]'"
            raise APIError(501, message)
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")

    @api.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        """List the one model."""
        return {"object": "list", "data": [model_object]}

    @api.get("/v1/models/{name:path}")
    async def get_model(name: str) -> dict[str, Any]:
        """Describe the model by name."""
        if name != model.name:
            raise service.unknown_model(name)
        return model_object

    @api.post("/v1/completions", responses=STREAMED)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue prompts."""
        return await respond(service, body, request)

    @api.post("/v1/chat/completions", responses=STREAMED)
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        """Continue a conversation."""
        return await respond(service, body, request)

    @api.get("/atlas/model")
    def describe() -> dict[str, Any]:
        """Describe the model and its training run for the page."""
        return {
            **{name: getattr(model, name) for name in DESCRIBED},
            "max_tokens": service.options.max_tokens,
            "examples": service.options.examples,
            "curves": load_curves(service.options.metrics_folder),
            "heads": load_heads(service.options.metrics_folder),
        }

    one_at_a_time = asyncio.Semaphore(1)

    @api.post("/atlas/attention")
    async def attention(body: AttentionRequest) -> dict[str, Any]:
        """Return the attention weights of the last token, by layer, head and position."""
        ids = body.ids[-visible_tokens(len(body.ids), model.context_length) :]
        service.check_ids(ids, "ids")
        async with one_at_a_time:  # it competes with the engine for the processor
            layers = await asyncio.to_thread(model.attention, ids)
        return {"tokens": [model.piece(each) for each in ids], "layers": layers}

    return api


async def respond(
    service: ModelService, body: CompletionRequest | ChatRequest, request: Request
) -> Response:
    """Generate completions, in one response or as a stream of chunks."""
    completions = await asyncio.to_thread(Completions, service, body)  # templates take seconds
    try:
        if not body.stream:
            content = await _unless_disconnected(request, completions.response())
            return Response(orjson.dumps(content), media_type="application/json")
        events = completions.events()
        # An error before the first event still gets a status of its own.
        first = await _unless_disconnected(request, anext(events))
    except BaseException:
        completions.cancel()
        raise
    return EventStream(completions, first, events)


class EventStream(StreamingResponse):
    """A stream of events that frees its slots whenever it ends, even before the first event."""

    def __init__(self, completions: Completions, first: bytes, rest: AsyncIterator[bytes]) -> None:
        async def events() -> AsyncIterator[bytes]:
            yield first
            async for event in rest:
                yield event

        super().__init__(events(), media_type=EVENT_STREAM, headers={"Cache-Control": "no-cache"})
        self._completions = completions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._completions.cancel()


async def _unless_disconnected(request: Request, work: Awaitable[T]) -> T:
    """Await some work, but stop when the client disconnects."""
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise APIError(CLIENT_CLOSED_REQUEST, "the client disconnected")
    finally:
        task.cancel()
        disconnect.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
