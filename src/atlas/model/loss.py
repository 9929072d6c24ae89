"""Loss, accuracy and perplexity of a model over batches."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from atlas.model.language_model import LanguageModel

Arrays = Sequence[npt.NDArray[Any]]  # a batch: inputs (B, T), targets (B, T), ...

MAX_LOSS = 700.0  # nats; the perplexity of a larger loss overflows a float


class Tally(NamedTuple):
    """Sums over windows, which add up over batches and processes.

    An answer is right if all its tokens are. In plain text, each token is an answer.
    """

    loss: float  # sum of cross-entropies, nats
    tokens: float  # number of targets
    right: float  # number of right answers
    answers: float

    @property
    def mean(self) -> float:
        """Mean cross-entropy, nats per token."""
        return self.loss / self.tokens

    @property
    def accuracy(self) -> float:
        """Fraction of correct answers."""
        return self.right / self.answers


def perplexity(loss: float) -> float:
    """Perplexity of a loss in nats per token, capped where it would overflow."""
    return math.exp(min(loss, MAX_LOSS))


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of cross-entropies (nats) of logits (B, T, V) at targets (B, T), ignoring -100."""
    at_least_float32 = torch.promote_types(logits.dtype, torch.float32)
    flat = logits.flatten(0, 1).to(at_least_float32)  # (B * T, V)
    return F.cross_entropy(flat, targets.flatten(), reduction="sum")


@torch.no_grad()
def tally(model: LanguageModel, batches: Iterable[Arrays]) -> Tally:
    """Measure a model over batches.

    The mode of the model is restored; no random numbers are drawn.
    """
    device, questions = model.device, model.config.separator is not None
    loss, tokens, right, answers = 0.0, 0, 0, 0
    with model.evaluating():
        for batch in batches:
            inputs, targets = (torch.from_numpy(part).to(device) for part in batch[:2])
            logits = model(inputs)
            loss += cross_entropy_sum(logits, targets).item()
            asked = targets >= 0
            tokens += int(asked.sum())
            found = asked & (logits.argmax(dim=-1) == targets)
            if questions:  # one per window
                found, asked = (found == asked).all(dim=1) & asked.any(dim=1), asked.any(dim=1)
            right += int(found.sum())
            answers += int(asked.sum())
    return Tally(loss, tokens, right, answers)


def mean_loss(model: LanguageModel, batches: Iterable[Arrays]) -> float:
    """Mean cross-entropy over batches, nats per token."""
    return tally(model, batches).mean
