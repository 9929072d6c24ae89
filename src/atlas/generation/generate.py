"""Continues a prompt, token by token."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from atlas.generation.sampling import next_token
from atlas.model.decoder import Decoder


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


@torch.no_grad()
def generate(
    model: Decoder, prompt: list[int], most_tokens: int, sampling: Sampling
) -> Iterator[int]:
    """Yields the ids that continue a prompt, at most ``most_tokens``, up to the end of a text.

    An empty prompt begins a new text. The model sees the newest ``context_length`` tokens.
    """
    device = model.embedding.weight.device
    generator = torch.Generator().manual_seed(sampling.seed)
    ids = list(prompt) or [model.config.eos]
    for _ in range(most_tokens):
        window = torch.tensor([ids[-model.config.context_length :]], device=device)  # (1, T)
        logits = model(window)[0, -1].float().cpu()  # (V,)
        token = next_token(logits, sampling.temperature, sampling.top_k, sampling.top_p, generator)
        if token == model.config.eos:
            return
        ids.append(token)
        yield token
