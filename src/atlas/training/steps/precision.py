"""The precision of the matrix products: float32, or half of it with float32 weights.

bfloat16 has the range of float32. float16 has not: its gradients are scaled up so that small ones
do not vanish, and where a scaled one overflows, the step is left out and the scale halved
(arXiv:1710.03740).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from atlas.training.steps.optimizers import Optimizers

KINDS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
SMALLEST_SCALE = 1.0  # below it an overflow is no matter of precision


class Precision:
    """The precision of one training.

    Attributes:
        kind: of the numbers that are multiplied.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device = device.type
        self.kind = KINDS.get(name, torch.float32)
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")

    def compute(self) -> AbstractContextManager[Any]:
        """Within, a model computes in this precision."""
        whole = self.kind == torch.float32
        return nullcontext() if whole else torch.autocast(self._device, self.kind)

    def scaled(self, loss: Tensor) -> Tensor:
        """What the backward pass begins with."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizers: Optimizers) -> None:
        """Brings gradients back to their size."""
        if self._scaler.is_enabled():
            for member in optimizers.members:
                self._scaler.unscale_(member)

    def update(self, optimizers: Optimizers) -> None:
        """Updates the weights, whose gradients are finite."""
        optimizers.step()
        self._scaler.update()

    def may_skip(self) -> bool:
        """Whether a gradient that is not finite can be one of too large a scale."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > SMALLEST_SCALE

    def skip(self) -> None:
        """Halves the scale, for the next step."""
        self._scaler.update(self._scaler.get_scale() / 2)

    def state_dict(self) -> dict[str, Any]:
        """The scale; empty without one."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state that was saved."""
        if state:
            self._scaler.load_state_dict(state)
