"""A split token by token: what the model thought of each.

All else that evaluation says of a split is made of these numbers. B is the batch, T the context
length, N the number of tokens that were predicted.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atlas.model.language_model import LanguageModel
from atlas.tokens.windows import NO_TARGET, Batch


@dataclass(frozen=True)
class Scores:
    """What a model thought of each predicted token of a split, in the order of the text.

    Attributes:
        before: the token that stands before it, (N,).
        targets: the token, (N,).
        predicted: the likeliest token there, (N,).
        losses: negative logarithm of the target's probability, nats, (N,).
        confidences: probability of the likeliest token, (N,).
    """

    before: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    predicted: npt.NDArray[np.int32]
    losses: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]

    @property
    def loss(self) -> float:
        """Mean loss, nats a token."""
        return float(self.losses.mean(dtype=np.float64))

    @property
    def total(self) -> float:
        """Sum of the losses, nats."""
        return float(self.losses.sum(dtype=np.float64))

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each token was the likeliest, (N,)."""
        return np.equal(self.predicted, self.targets)

    def __len__(self) -> int:
        return len(self.targets)


@torch.no_grad()
def score(model: LanguageModel, batches: Iterable[Batch[Any]]) -> Scores:
    """Reads batches and scores each of their targets.

    The model is left in the mode it was in.
    """
    device = model.device
    parts: list[tuple[Tensor, ...]] = []
    with model.evaluating():
        for batch in batches:
            inputs, targets = (torch.from_numpy(part).to(device) for part in batch[:2])
            asked = targets != NO_TARGET
            logits = model(inputs)[asked]  # (N, V)
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            everything = logits.logsumexp(dim=-1)
            best, likeliest = logits.max(dim=-1)
            wanted = targets[asked]
            loss = everything - logits.gather(-1, wanted[:, None])[:, 0]
            found = (inputs[asked].int(), wanted.int(), likeliest.int(), loss, (best - everything))
            parts.append(tuple(each.cpu() for each in found))
    before, actual, predicted, losses, logs = (
        torch.cat(each).numpy() for each in zip(*parts, strict=True)
    )
    return Scores(before, actual, predicted, losses, np.exp(logs))
