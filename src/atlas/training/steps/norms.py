"""How large weights, gradients and updates are, tensor by tensor."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

LayerRow = dict[str, int | float | str]
COLUMNS = ("step", "layer", "weights", "gradient", "update")


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all tensors together, shares in other processes among them."""
    total = nn.utils.get_total_norm(list(tensors))
    return total.full_tensor() if isinstance(total, DTensor) else total


class LayerNorms:
    """The norms of one step; every process has to ask for them.

    ``before`` wants the gradients as they were computed, ``rows`` the weights as they are then.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._weights: dict[str, Tensor] = {}
        self._gradients: dict[str, Tensor] = {}

    @torch.no_grad()
    def before(self) -> None:
        """Remembers weights and gradients."""
        for name, parameter in self._model.named_parameters():
            self._weights[name] = parameter.detach().clone()
            gradient = parameter.grad
            self._gradients[name] = norm([gradient] if gradient is not None else [])

    @torch.no_grad()
    def rows(self, step: int) -> list[LayerRow]:
        """A row of each weight tensor; none if ``before`` was not called."""
        return [
            {
                "step": step,
                "layer": name,
                "weights": norm([self._weights[name]]).item(),
                "gradient": self._gradients[name].item(),
                "update": norm([parameter.detach() - self._weights[name]]).item(),
            }
            for name, parameter in self._model.named_parameters()
            if name in self._weights
        ]
