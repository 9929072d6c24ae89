"""The served model: checks each request and turns it into sequences to generate."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atlas.inference.backends.base import LoadedModel
from atlas.inference.batch import TokenSequence
from atlas.tools.report.results import curve_values, parse_table
from atlas.tools.serve.engine import Engine, Limits
from atlas.tools.serve.errors import APIError
from atlas.tools.serve.metrics import Metrics
from atlas.tools.serve.schemas import ChatRequest, CompletionRequest

SEEDS = 2**64
MAX_CURVE_POINTS = 500
CURVES = {  # of the page: file and column
    "train": ("train.csv", "loss"),
    "train_average": ("train.csv", "loss_average"),
    "val": ("val.csv", "loss"),
}


@dataclass(frozen=True)
class ModelService:
    """A model with everything its requests need."""

    model: LoadedModel
    engine: Engine
    limits: Limits
    metrics: Metrics | None
    started: int  # seconds since the epoch
    metrics_folder: Path | None = None  # of the project that trained the model, for its curves

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


def load_curves(folder: Path | None) -> dict[str, list[list[float]]]:
    """Read the [step, loss] points of a training run, at most ``MAX_CURVE_POINTS`` a curve."""
    curves: dict[str, list[list[float]]] = {}
    for name, (file, column) in CURVES.items():
        if folder and (path := folder / file).is_file():
            table, _ = parse_table(path.read_bytes())
            values = curve_values(table, column)
            stride = -(-len(values) // MAX_CURVE_POINTS) or 1
            curves[name] = values[::stride].reset_index().to_numpy().tolist()
    return {name: points for name, points in curves.items() if points}
