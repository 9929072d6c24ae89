"""Continues a prompt, token by token."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from atlas.errors import AtlasError
from atlas.generation.sampling import next_token
from atlas.model.cache import KVCache
from atlas.model.config import ModelConfig
from atlas.model.decoder import Decoder
from atlas.model.language_model import LanguageModel


@dataclass(frozen=True)
class Sampling:
    """How to pick tokens.

    Attributes:
        temperature: 0 picks the likeliest, 1 samples from the model's own probabilities.
        top_k: sample among the k likeliest; 0 among all.
        top_p: sample among the fewest whose probabilities reach p; 1 among all.
        seed: of the random choices.
    """

    temperature: float
    top_k: int
    top_p: float
    seed: int


GREEDY = Sampling(temperature=0, top_k=0, top_p=1, seed=0)
USUAL = Sampling(temperature=0.8, top_k=50, top_p=0.95, seed=1)  # gives varied, sound text


class Continuation:
    """The logits after a text that grows, from a cache where the model has one."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._cache: KVCache | None = None
        if isinstance(model, Decoder):
            self._cache = KVCache(model.config, batch=1, like=model.embedding.weight)

    @torch.no_grad()
    def after(self, ids: list[int]) -> Tensor:
        """Logits (V,), on the CPU, of the token after ``ids``, which go on from those of before.

        The model sees the newest ``context_length`` of them. Once there are more, every token
        moves to another position, and the cache is of no use.
        """
        longest = self._model.config.context_length
        if isinstance(self._model, Decoder) and self._cache is not None and len(ids) <= longest:
            logits = self._model(self._row(ids[self._cache.length :]), cache=self._cache)
        else:
            logits = self._model(self._row(ids[-longest:]))
        last: Tensor = logits[0, -1].float().cpu()
        return last

    def _row(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self._model.device)  # (1, T)


def generate(
    model: LanguageModel, prompt: list[int], most_tokens: int, sampling: Sampling
) -> Iterator[int]:
    """Yields the ids that continue a prompt, at most ``most_tokens``, up to the end of a text.

    An empty prompt begins a new text, and so does a question, to a model that answers questions.
    The model sees the newest ``context_length`` tokens.

    Raises:
        AtlasError: an encoder-decoder is asked what is no question, or a longer one than it reads.
    """
    config = model.config
    if config.kind == "encoder_decoder":
        _check_question(config, prompt)
        # Beyond the context the question would be lost, and with it what is answered.
        most_tokens = min(most_tokens, config.context_length - len(prompt))
    generator = torch.Generator().manual_seed(sampling.seed)
    begins = not prompt or config.separator is not None
    ids = [config.eos, *prompt] if begins else list(prompt)
    continuation = Continuation(model)
    for _ in range(most_tokens):
        logits = continuation.after(ids)
        token = next_token(logits, sampling.temperature, sampling.top_k, sampling.top_p, generator)
        if token == config.eos:
            return
        ids.append(token)
        yield token


def _check_question(config: ModelConfig, prompt: list[int]) -> None:
    if config.separator not in prompt:
        raise AtlasError(
            "the prompt ends no question, and this model answers questions: end it with the "
            "piece of tokenize.answer_after"
        )
    if len(prompt) >= config.context_length:
        raise AtlasError(
            f"the prompt has {len(prompt)} tokens, and with its beginning and answer there must be "
            f"room for it in model.context_length ({config.context_length}): ask a shorter question"
        )
