"""Muon: momentum whose update is made orthogonal, for the matrices of hidden layers.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon/).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate

# Five steps of x <- a x + b x^3 + c x^5 bring singular values of 0.01 to 1 near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5
TINY = 1e-7


def orthogonalise(matrices: Tensor, kind: torch.dtype = torch.float32) -> Tensor:
    """Brings the singular values of matrices (..., N, M) near 1 (0.7 to 1.2), vectors kept.

    A quintic Newton-Schulz iteration: matrix products alone.

    Args:
        matrices: many of one shape are done at once.
        kind: of the numbers to compute with: bfloat16 is enough, and slow on a CPU.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(kind)  # (..., n, m), n <= m
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + TINY)  # so that no singular value is above 1
    for _ in range(STEPS):
        square = x @ x.mT  # (..., n, n)
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return found


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, for matrices.

    An update has the norm of an orthogonal matrix; tall ones are scaled up by the root of their
    proportions, so that outputs change as much as those of a square one. Weight decay is that of
    AdamW: decoupled from the gradient.

    Args:
        params: matrices (N, M), or groups of them.
        lr: learning rate; 0.02 is the usual one.
        momentum: decay of the mean of the gradient.
        weight_decay: share of the weights, times ``lr``, that a step takes off.
        kind: of the numbers of the iteration; None for bfloat16 on a GPU and float32 elsewhere.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        kind: torch.dtype | None = None,
    ) -> None:
        self._kind = kind
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Updates all matrices that have a gradient; those of one shape at once."""
        if closure is not None:
            raise ValueError("Muon takes no closure: compute the gradient first")
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[tuple(matrix.shape)].append(matrix)
            for shape, matrices in shapes.items():
                directions = self._directions(matrices, group["momentum"])
                kind = self._kind or (torch.bfloat16 if matrices[0].is_cuda else torch.float32)
                whole = torch.stack([_gathered(direction) for direction in directions])
                updates = orthogonalise(whole, kind)
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(
                    matrices,
                    [_shared_as(*pair) for pair in zip(updates, matrices, strict=True)],
                    alpha=-group["lr"] * scale,
                )

    def _directions(self, matrices: list[Tensor], momentum: float) -> Sequence[Tensor]:
        """Gradients with Nesterov momentum."""
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        means = [self.state[matrix]["momentum"] for matrix in matrices]
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, means, momentum)


def _gathered(matrix: Tensor) -> Tensor:
    """A matrix of which other processes hold a share, as a whole."""
    return matrix.full_tensor() if isinstance(matrix, DTensor) else matrix


def _shared_as(update: Tensor, matrix: Tensor) -> Tensor:
    """This process's share of an update that every process has."""
    if not isinstance(matrix, DTensor):
        return update
    mesh = matrix.device_mesh
    return DTensor.from_local(update, mesh, [Replicate()]).redistribute(mesh, matrix.placements)
