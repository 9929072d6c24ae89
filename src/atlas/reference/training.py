"""The training loop: a batch, its gradient, clipped, and an update; again."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from atlas.reference.arrays import Array, Gradients, Parameters
from atlas.reference.decoder import decoder_backward, decoder_forward
from atlas.reference.loss import cross_entropy_backward, cross_entropy_forward
from atlas.reference.optimizers import Optimizer
from atlas.reference.options import Options


class Batch(NamedTuple):
    """What one step learns from.

    Attributes:
        ids: (B, T).
        targets: (B, T), the token after each; -100 where none is to be learned.
        mask: (B, T), True at tokens and False at padding; None without padding.
    """

    ids: Array
    targets: Array
    mask: Array | None = None


def train(
    parameters: Parameters,
    options: Options,
    batch_of_step: Callable[[int], Batch],
    optimizer: Optimizer,
    lr_of_step: Callable[[int], float],
    steps: int,
    clip_norm: float = 1.0,
) -> Iterator[float]:
    """Trains the weights in place, and yields the loss of each step after its update.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; nothing was updated with it.
    """
    for step in range(steps):
        loss, gradients = loss_and_gradients(parameters, options, batch_of_step(step))
        norm = clip(gradients, clip_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {step}: the loss is {loss:g}, the norm of the gradient {norm:g}; "
                "lower the learning rate or lengthen the warm-up"
            )
        optimizer.update(parameters, gradients, lr_of_step(step))
        yield loss


def loss_and_gradients(
    parameters: Parameters, options: Options, batch: Batch
) -> tuple[float, Gradients]:
    """The mean cross-entropy of a batch, nats a target, and its gradient by every weight."""
    logits, decoder_cache = decoder_forward(parameters, options, batch.ids, batch.mask)
    loss, loss_cache = cross_entropy_forward(logits, batch.targets)
    dlogits = cross_entropy_backward(1.0, loss_cache)  # (B, T, V)
    return float(loss), decoder_backward(dlogits, decoder_cache)


def clip(gradients: Gradients, most: float) -> float:
    """Scales gradients in place so that their norm, all weights together, is ``most`` at most.

    Returns:
        The norm before (Pascanu et al. 2013, arXiv:1211.5063).
    """
    norm = math.sqrt(sum(float(np.vdot(each, each)) for each in gradients.values()))
    scale = most / (norm + 1e-6)  # PyTorch's; the sum is never 0
    if scale < 1:
        for gradient in gradients.values():
            gradient *= scale
    return norm


def warmup_cosine(step: int, steps: int, warmup_steps: int, final: float) -> float:
    """The factor on the peak learning rate at a step (0-based).

    It climbs linearly over the warm-up, reaching 1 at its last step, and falls along half a
    cosine to ``final`` at the last step (SGDR without restarts, arXiv:1608.03983)::

        steps=6, warmup_steps=2, final=0.0: 0.5, 1.0, 0.853.., 0.5, 0.146.., 0.0

    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step + 1 - warmup_steps) / max(1, steps - warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
