"""Training: the loss, the optimizers, the learning rate schedule and the loop.

Legend: B batch, T time, V vocabulary, N tokens (B*T), M tokens with a target.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from atlas.reference.decoder import decoder_backward, decoder_forward
from atlas.reference.layers import Array, Cache, Gradients, Parameters, Scalar, flatten_tokens
from atlas.reference.options import Options

IGNORED = -100  # a target without loss and gradient, as in PyTorch


def cross_entropy_forward(logits: Array, targets: Array) -> tuple[Scalar, Cache]:
    """Mean cross-entropy in nats of logits (B, T, V) at targets (B, T) that are not ignored.

        loss = mean over targets of -log softmax(logits)[target]
        dlogits = (softmax(logits) - one_hot(target)) / number of targets

    Raises:
        ValueError: a target is not an id, or all are ignored.
    """
    flat = targets.reshape(-1)  # (N,)
    (positions,) = (flat != IGNORED).nonzero()  # (M,)
    ids = flat[positions]  # (M,)
    outside = ids[(ids < 0) | (ids >= logits.shape[-1])]
    if outside.size:
        raise ValueError(f"target {outside[0]} is outside 0 to {logits.shape[-1] - 1}")
    if not positions.size:
        raise ValueError("every target is ignored, so there is no loss")
    selected = flatten_tokens(logits)[positions]  # (M, V)
    selected = selected - selected.max(-1, keepdims=True)  # prevents overflow
    log_probabilities = selected - np.log(np.exp(selected).sum(-1, keepdims=True))  # (M, V)
    loss: Scalar = -log_probabilities[np.arange(len(ids)), ids].mean()
    return loss, (log_probabilities, positions, ids, logits.shape)


def cross_entropy_backward(dout: Scalar | float, cache: Cache) -> Array:
    """Return the gradient of the logits (B, T, V) from that of the loss, usually 1."""
    log_probabilities, positions, ids, shape = cache
    dselected = np.exp(log_probabilities)  # (M, V)
    dselected[np.arange(len(ids)), ids] -= 1
    dlogits = np.zeros(shape, log_probabilities.dtype)  # (B, T, V)
    flatten_tokens(dlogits)[positions] = dselected * (dout / len(ids))
    return dlogits


class Optimizer(Protocol):
    """Updates weights; keeps state per weight, in the dtype of the weight."""

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Update the weights in place."""


@dataclass
class SGD:
    """Stochastic gradient descent with momentum, as in torch.optim.

    m = momentum m + g,  w -= lr m
    """

    momentum: float = 0.0
    velocity: dict[str, Array] = field(default_factory=dict)

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Update the weights in place."""
        for name, gradient in gradients.items():
            velocity = self.velocity.setdefault(name, np.zeros_like(gradient))
            velocity *= self.momentum
            velocity += gradient
            parameters[name] -= lr * velocity


@dataclass
class Adam:
    """Adam (arXiv:1412.6980): each weight moves by its mean gradient over the root mean square.

    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
    w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    step: int = 0  # t, updates so far
    mean: dict[str, Array] = field(default_factory=dict)  # m
    mean_square: dict[str, Array] = field(default_factory=dict)  # v

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Update the weights in place."""
        self.step += 1
        # Both running means start at 0; these factors correct for it.
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
    """Adam with decoupled weight decay (arXiv:1711.05101): w *= 1 - lr weight_decay, then Adam.

    Only matrices decay, not biases and norm weights.
    """

    weight_decay: float = 0.01

    def update(self, parameters: Parameters, gradients: Gradients, lr: float) -> None:
        """Decay the matrices and update the weights in place."""
        for name in gradients:
            if parameters[name].ndim >= 2:
                parameters[name] *= 1 - lr * self.weight_decay
        super().update(parameters, gradients, lr)


class Batch(NamedTuple):
    """Data of one training step."""

    ids: Array  # (B, T)
    targets: Array  # (B, T), the token after each id; -100 to ignore it
    mask: Array | None = None  # (B, T), True at tokens and False at padding


def train(
    parameters: Parameters,
    options: Options,
    get_batch: Callable[[int], Batch],
    optimizer: Optimizer,
    get_lr: Callable[[int], float],
    steps: int,
    max_grad_norm: float = 1.0,
) -> Iterator[float]:
    """Train the weights in place, and yield the loss of each step.

    ``get_batch`` and ``get_lr`` take the number of the step, from 0.

    Raises:
        FloatingPointError: the loss or the gradient is not finite; the weights are unchanged.
    """
    for step in range(steps):
        loss, gradients = loss_and_gradients(parameters, options, get_batch(step))
        norm = clip_gradients(gradients, max_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise FloatingPointError(
                f"step {step}: loss {loss:g}, gradient norm {norm:g}; lower the learning rate or "
                "lengthen the warm-up"
            )
        optimizer.update(parameters, gradients, get_lr(step))
        yield loss


def loss_and_gradients(
    parameters: Parameters, options: Options, batch: Batch
) -> tuple[float, Gradients]:
    """Compute the loss of a batch, nats per target, and its gradient for every weight."""
    logits, decoder_cache = decoder_forward(parameters, options, batch.ids, batch.mask)
    loss, loss_cache = cross_entropy_forward(logits, batch.targets)
    dlogits = cross_entropy_backward(1.0, loss_cache)  # (B, T, V)
    return float(loss), decoder_backward(dlogits, decoder_cache)


def clip_gradients(gradients: Gradients, max_norm: float) -> float:
    """Scale all gradients in place to a total norm of at most ``max_norm`` (arXiv:1211.5063).

    Returns:
        The norm before clipping.
    """
    norm = math.sqrt(sum(float(np.vdot(each, each)) for each in gradients.values()))
    scale = max_norm / (norm + 1e-6)  # as in PyTorch
    if scale < 1:
        for gradient in gradients.values():
            gradient *= scale
    return norm


def warmup_cosine(step: int, steps: int, warmup_steps: int, min_ratio: float) -> float:
    """Factor on the peak learning rate at a step, counted from 0 (arXiv:1608.03983).

    It rises linearly to 1 over the warm-up and falls along half a cosine to ``min_ratio``::

        steps=6, warmup_steps=2, min_ratio=0.0: 0.5, 1.0, 0.853.., 0.5, 0.146.., 0.0

    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step + 1 - warmup_steps) / max(1, steps - warmup_steps)
    return min_ratio + (1 - min_ratio) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
