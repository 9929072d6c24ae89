"""Loss over windows, weighted by tokens: the one measure of training and evaluation."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from atlas.model.language_model import LanguageModel
from atlas.tokens.windows import NO_TARGET, Batch


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum of the cross-entropies (nats) of logits (B, T, V) at targets (B, T), padding left out."""
    at_least_float32 = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(
        logits.flatten(0, 1).to(at_least_float32),
        targets.flatten(),
        ignore_index=NO_TARGET,
        reduction="sum",
    )


@torch.no_grad()
def total_loss(model: LanguageModel, batches: Iterable[Batch[Any]]) -> tuple[float, int]:
    """Sum of the cross-entropies (nats) over batches, and the number of tokens predicted.

    The model is left in the mode it was in; no random number is drawn.
    """
    device = model.device
    total, tokens = 0.0, 0
    with model.evaluating():
        for batch in batches:
            inputs, targets = (torch.from_numpy(part).to(device) for part in batch[:2])
            total += cross_entropy_sum(model(inputs), targets).item()
            tokens += batch.predicted()
    return total, tokens


def mean_loss(model: LanguageModel, batches: Iterable[Batch[Any]]) -> float:
    """Cross-entropy (nats) a token over batches."""
    total, tokens = total_loss(model, batches)
    return total / tokens
