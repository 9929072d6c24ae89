"""From logits to the next token. Pure functions; V is the vocabulary."""

import torch
from torch import Tensor


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """The k largest logits (V,), the rest -inf; 0 keeps all. Ties at the border all stay."""
    if not 0 < k < len(logits):
        return logits
    return logits.masked_fill(logits < logits.topk(k).values[-1], -torch.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """The fewest likeliest tokens whose probabilities reach p, the rest -inf (arXiv:1904.09751)."""
    if p >= 1:
        return logits
    ordered, order = logits.sort(descending=True, stable=True)
    probabilities = ordered.softmax(0)
    before = probabilities.cumsum(0) - probabilities  # probability of all that are likelier
    return logits.masked_fill(
        torch.zeros_like(order, dtype=torch.bool).scatter(0, order, before >= p), -torch.inf
    )


def next_token(
    logits: Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator
) -> int:
    """Draws a token from logits (V,); the likeliest one at temperature 0."""
    if temperature == 0:
        return int(logits.argmax())
    logits = keep_top_p(keep_top_k(logits / temperature, top_k), top_p)
    return int(torch.multinomial(logits.softmax(0), 1, generator=generator))
