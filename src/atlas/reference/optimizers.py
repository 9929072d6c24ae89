"""Optimizers: what a gradient does to a weight. The formulas are those of torch.optim.

SGD     m = momentum m + g                              w -= lr m
Adam    m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2
        w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)      (arXiv:1412.6980)
AdamW   the same, after w *= 1 - lr weight_decay for matrices        (arXiv:1711.05101)

``update`` changes the weights in place. State is kept by name, in the dtype of the weight.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from atlas.reference.arrays import Array, Gradients, Parameters


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
