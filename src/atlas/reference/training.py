"""The training loop: a batch, its gradient, clipped, and an update; again.

Cross-entropy: how surprised the model is by the right token, in nats.

    loss = mean over targets of -log softmax(logits)[target]
    dlogits = (softmax(logits) - one-hot of target) / number of targets

A target of -100 is ignored, as in PyTorch: neither its loss nor its gradient counts.

Optimizers: what a gradient does to a weight. The formulas are those of torch.optim.

SGD     m = momentum m + g                              w -= lr m
Adam    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
        w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)      (arXiv:1412.6980)
AdamW   the same, after w *= 1 - lr weight_decay for matrices        (arXiv:1711.05101)

``update`` changes the weights in place. State is kept by name, in the dtype of the weight.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from atlas.reference.decoder import decoder_backward, decoder_forward
from atlas.reference.layers import Array, Cache, Gradients, Parameters, Scalar, rows
from atlas.reference.options import Options

IGNORED = -100


def cross_entropy_forward(logits: Array, targets: Array) -> tuple[Scalar, Cache]:
    """The mean over the targets (...) that are not ignored, of logits (..., V).

    Raises:
        ValueError: a target is no id, or all are ignored.
    """
    flat = targets.reshape(-1)  # (N,)
    (places,) = (flat != IGNORED).nonzero()  # (M,)
    wanted = flat[places]  # (M,)
    outside = wanted[(wanted < 0) | (wanted >= logits.shape[-1])]
    if outside.size:
        raise ValueError(f"target {outside[0]}: targets go from 0 to {logits.shape[-1] - 1}")
    if not places.size:
        raise ValueError("every target is ignored: there is no loss")
    picked = rows(logits)[places]  # (M, V)
    picked = picked - picked.max(-1, keepdims=True)  # keeps exp from overflowing
    log_shares = picked - np.log(np.exp(picked).sum(-1, keepdims=True))  # (M, V)
    loss: Scalar = -log_shares[np.arange(len(wanted)), wanted].mean()
    return loss, (log_shares, places, wanted, logits.shape)


def cross_entropy_backward(dout: Scalar | float, cache: Cache) -> Array:
    """The gradient of logits (..., V); ``dout`` is that of the loss, 1 if it is the end."""
    log_shares, places, wanted, shape = cache
    dpicked = np.exp(log_shares)  # (M, V)
    dpicked[np.arange(len(wanted)), wanted] -= 1
    dlogits = np.zeros((np.prod(shape[:-1], dtype=int), shape[-1]), log_shares.dtype)  # (N, V)
    dlogits[places] = dpicked * (dout / len(wanted))
    return dlogits.reshape(shape)


class Optimizer(Protocol):
    """Anything that updates weights."""

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Moves the weights, in place, at a learning rate."""


@dataclass
class SGD:
    """Stochastic gradient descent with momentum; 0 for none."""

    momentum: float = 0.0
    velocity: dict[str, Array] = field(default_factory=dict)

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Moves the weights, in place, at a learning rate."""
        for name, gradient in gradients.items():
            velocity = self.velocity.setdefault(name, np.zeros_like(gradient))
            velocity *= self.momentum
            velocity += gradient
            parameters[name] -= lr * velocity


@dataclass
class Adam:
    """Adam: each weight moves by the mean of its gradients over their root mean square.

    Attributes:
        beta1: how much of the mean stays at each step.
        beta2: how much of the mean square stays.
        eps: what keeps the quotient finite.
        step: updates so far.
        mean: of the gradients.
        mean_square: of the gradients.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    step: int = 0
    mean: dict[str, Array] = field(default_factory=dict)
    mean_square: dict[str, Array] = field(default_factory=dict)

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Moves the weights, in place, at a learning rate."""
        self.step += 1
        # Both means begin at 0, and are that much too small.
        step_size = lr / (1 - self.beta1**self.step)
        root_correction = 1 / math.sqrt(1 - self.beta2**self.step)
        for name, gradient in gradients.items():
            mean = self.mean.setdefault(name, np.zeros_like(gradient))
            mean_square = self.mean_square.setdefault(name, np.zeros_like(gradient))
            mean *= self.beta1
            mean += (1 - self.beta1) * gradient
            mean_square *= self.beta2
            mean_square += (1 - self.beta2) * gradient * gradient
            root = np.sqrt(mean_square)
            root *= root_correction
            root += self.eps
            parameters[name] -= step_size * (mean / root)


@dataclass
class AdamW(Adam):
    """Adam with decoupled weight decay, of matrices alone: not of biases and scales of norms."""

    weight_decay: float = 0.01

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Shrinks the matrices and moves the weights, in place, at a learning rate."""
        for name in gradients:
            if parameters[name].ndim >= 2:
                parameters[name] *= 1 - lr * self.weight_decay
        super().update(parameters, gradients, lr)


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
    max_grad_norm: float = 1.0,
) -> Iterator[float]:
    """Trains the weights in place, and yields the loss of each step after its update.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; nothing was updated with it.
    """
    for step in range(steps):
        loss, gradients = loss_and_gradients(parameters, options, batch_of_step(step))
        norm = clip(gradients, max_grad_norm)
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
