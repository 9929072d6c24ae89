"""L2 norms of weights, gradients and updates, per tensor and in total."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

LayerRow = dict[str, int | float | str]
LAYER_COLUMNS = ("step", "layer", "weights", "gradient", "update")


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all tensors together, including the shards of other processes."""
    total = nn.utils.get_total_norm(list(tensors))
    return total.full_tensor() if isinstance(total, DTensor) else total


class LayerNormRecorder:
    """Measures each weight tensor, its gradient and its update in one step.

    Every process must call both methods: ``record`` before the update, ``rows`` after it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights: dict[str, Tensor] = {}
        self._gradient_norms: dict[str, Tensor] = {}

    @torch.no_grad()
    def record(self) -> None:
        """Remember the weights and the norms of their gradients."""
        for name, parameter in self._model.named_parameters():
            self._weights[name] = parameter.detach().clone()
            gradient = parameter.grad
            self._gradient_norms[name] = total_norm([gradient] if gradient is not None else [])

    @torch.no_grad()
    def rows(self, step: int) -> list[LayerRow]:
        """One row of metrics/layers.csv per weight tensor; none if the update was skipped."""
        return [
            {
                "step": step,
                "layer": name,
                "weights": total_norm([self._weights[name]]).item(),
                "gradient": self._gradient_norms[name].item(),
                "update": total_norm([parameter.detach() - self._weights[name]]).item(),
            }
            for name, parameter in self._model.named_parameters()
            if name in self._weights
        ]
