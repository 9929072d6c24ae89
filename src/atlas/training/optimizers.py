"""Which optimizer updates which weights, and with how much decay.

Muon: momentum whose update is made orthogonal, for the matrices of hidden layers.

Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"
(https://kellerjordan.github.io/posts/muon/).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from atlas.params.schema import TrainParams

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


HEADS = ("head.weight", "output.weight")  # of a transformer, of a two-layer network
PEAK = "initial_lr"  # as torch's schedulers name it


class Optimizers:
    """The optimizers of a training as one.

    Attributes:
        members: each with groups of its own.
    """

    def __init__(self, members: Iterable[torch.optim.Optimizer]) -> None:
        self.members = list(members)
        for group in self._groups():
            group[PEAK] = group["lr"]

    def set_factor(self, factor: float) -> None:
        """Sets each learning rate to its peak times the factor of the schedule."""
        for group in self._groups():
            group["lr"] = group[PEAK] * factor

    @property
    def lr(self) -> float:
        """The learning rate of now: of AdamW or SGD."""
        rate: float = self.members[-1].param_groups[0]["lr"]
        return rate

    def have_begun(self) -> bool:
        """Whether they have made a step, and so have something to remember."""
        return any(member.state for member in self.members)

    def step(self) -> None:
        """Updates all weights."""
        for member in self.members:
            member.step()

    def zero_grad(self) -> None:
        """Lets go of the gradients."""
        for member in self.members:
            member.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of each."""
        return [member.state_dict() for member in self.members]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Goes on from states that were saved."""
        for member, state in zip(self.members, states, strict=True):
            member.load_state_dict(state)

    def _groups(self) -> list[dict[str, Any]]:
        return [group for member in self.members for group in member.param_groups]


def make_optimizers(model: nn.Module, train: TrainParams) -> Optimizers:
    """What ``train.optimizer`` names, over all weights of a model.

    - ``adamw``: AdamW (arXiv:1711.05101).
    - ``sgd``: with Nesterov momentum where ``momentum`` is not 0.
    - ``muon``: Muon for the matrices of linear layers but the last one, which gives the logits;
      AdamW for that one, embeddings and vectors.

    Matrices decay, embeddings among them; biases and the scales of norms do not.
    """
    hidden, matrices, vectors = _kinds(model)
    members: list[torch.optim.Optimizer] = []
    if train.optimizer == "muon":
        members.append(Muon(hidden, train.muon_lr, train.momentum, train.weight_decay))
    else:
        matrices = hidden + matrices
    groups = [
        {"params": matrices, "weight_decay": train.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if train.optimizer == "sgd":
        members.append(
            torch.optim.SGD(
                groups, train.lr, momentum=train.momentum, nesterov=train.momentum > 0, fused=True
            )
        )
    else:
        betas = (train.beta1, train.beta2)
        members.append(torch.optim.AdamW(groups, train.lr, betas=betas, fused=True))
    return Optimizers(members)


def _kinds(model: nn.Module) -> tuple[list[Tensor], ...]:
    """The weights of a model: matrices of hidden layers, other matrices, vectors.

    A tied head is the embedding, and so no hidden layer.
    """
    inside = {
        f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)
    }
    hidden: list[Tensor] = []
    matrices: list[Tensor] = []
    vectors: list[Tensor] = []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors.append(parameter)
        elif name in inside and name not in HEADS:
            hidden.append(parameter)
        else:
            matrices.append(parameter)
    if len(hidden) + len(matrices) + len(vectors) != len(list(model.parameters())):
        raise AssertionError("the parameter groups do not cover the model")
    return hidden, matrices, vectors
