"""AdamW, SGD and Muon, the weights that each updates, and the learning rate.

Muon orthogonalizes the momentum of the matrices of hidden layers (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/).
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from atlas.params.schema import TrainParams

# Five steps of x <- a x + b x^3 + c x^5 bring singular values between 0.01 and 1 close to 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
EPSILON = 1e-7


def orthogonalize(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bring all singular values of matrices (..., N, M) to about 1 (0.7 to 1.2); keep the vectors.

    A quintic Newton-Schulz iteration, which needs only matrix products. It computes in ``dtype``:
    bfloat16 is precise enough, but slow on a CPU.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = (matrices.mT if tall else matrices).to(dtype)  # (..., n, m), n <= m
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + EPSILON)  # no singular value above 1
    for _ in range(NEWTON_SCHULZ_STEPS):
        square = x @ x.mT  # (..., n, n)
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return result


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum for matrices.

    The update of a tall matrix is scaled by sqrt(rows / columns), so that its outputs change as
    much as those of a square one. Weight decay is decoupled from the gradient, as in AdamW. The
    iteration computes in ``dtype``, by default bfloat16 on a GPU and float32 elsewhere.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._dtype = dtype
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient; matrices of one shape together."""
        if closure is not None:
            raise ValueError("Muon takes no closure; compute the gradient before step()")
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[tuple(matrix.shape)].append(matrix)
            for shape, matrices in shapes.items():
                directions = self._directions(matrices, group["momentum"])
                on_gpu = matrices[0].is_cuda
                dtype = self._dtype or (torch.bfloat16 if on_gpu else torch.float32)
                full = torch.stack([_gather(direction) for direction in directions])
                updates = orthogonalize(full, dtype)
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
                shards = [_shard_like(*pair) for pair in zip(updates, matrices, strict=True)]
                torch._foreach_add_(matrices, shards, alpha=-group["lr"] * scale)

    def _directions(self, matrices: list[Tensor], momentum: float) -> Sequence[Tensor]:
        """Nesterov momentum: update the running means, and move the gradients toward them."""
        for matrix in matrices:
            if not self.state[matrix]:
                self.state[matrix]["momentum"] = torch.zeros_like(matrix)
        means = [self.state[matrix]["momentum"] for matrix in matrices]
        gradients = [matrix.grad for matrix in matrices if matrix.grad is not None]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        return torch._foreach_lerp(gradients, means, momentum)


def _gather(matrix: Tensor) -> Tensor:
    """Gather a matrix that FSDP2 shards over processes."""
    return matrix.full_tensor() if isinstance(matrix, DTensor) else matrix


def _shard_like(update: Tensor, matrix: Tensor) -> Tensor:
    """Return this process's shard of an update; every process computes the whole update."""
    if not isinstance(matrix, DTensor):
        return update
    mesh = matrix.device_mesh
    return DTensor.from_local(update, mesh, [Replicate()]).redistribute(mesh, matrix.placements)


HEADS = ("head.weight", "output.weight")  # transformer, two-layer network
PEAK_LR = "initial_lr"  # the key that PyTorch's schedulers use


class Optimizers:
    """Several optimizers for different weights, used like one optimizer."""

    def __init__(self, members: Iterable[torch.optim.Optimizer]) -> None:
        self.members = list(members)
        for group in self._groups():
            group[PEAK_LR] = group["lr"]

    def scale_lr(self, factor: float) -> None:
        """Set each learning rate to a factor times its peak."""
        for group in self._groups():
            group["lr"] = group[PEAK_LR] * factor

    @property
    def lr(self) -> float:
        """The current learning rate of AdamW or SGD, or of Muon if it updates all weights."""
        lr: float = self.members[-1].param_groups[0]["lr"]
        return lr

    def has_state(self) -> bool:
        """True after the first update."""
        return any(member.state for member in self.members)

    def step(self) -> None:
        """Update all weights."""
        for member in self.members:
            member.step()

    def zero_grad(self) -> None:
        """Free the gradients."""
        for member in self.members:
            member.zero_grad()

    def _groups(self) -> list[dict[str, Any]]:
        return [group for member in self.members for group in member.param_groups]


def make_optimizers(model: nn.Module, train: TrainParams) -> Optimizers:
    """Make the optimizers that ``train.optimizer`` names.

    - ``adamw``: AdamW (arXiv:1711.05101).
    - ``sgd``: SGD, with Nesterov momentum unless ``momentum`` is 0.
    - ``muon``: Muon for the matrices of hidden layers; AdamW for embeddings, head and vectors.

    Weight decay applies to matrices, including embeddings, and not to biases and norm scales. A and
    B of LoRA are matrices that AdamW or SGD updates. Frozen weights have no optimizer.
    """
    hidden, matrices, vectors = _split_parameters(model)
    members: list[torch.optim.Optimizer] = []
    if train.optimizer == "muon" and hidden:
        members.append(Muon(hidden, train.muon_lr, train.momentum, train.weight_decay))
    elif train.optimizer != "muon":
        matrices = hidden + matrices
    groups = [
        {"params": matrices, "weight_decay": train.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        return Optimizers(members)
    if train.optimizer == "sgd":
        momentum = train.momentum
        members.append(
            torch.optim.SGD(groups, train.lr, momentum=momentum, nesterov=momentum > 0, fused=True)
        )
    else:
        betas = (train.beta1, train.beta2)
        members.append(torch.optim.AdamW(groups, train.lr, betas=betas, fused=True))
    return Optimizers(members)


def _split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Split the weights that are trained into matrices of hidden layers, others, and vectors.

    A tied head is the embedding, and so not a hidden layer.
    """
    linear = {
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    groups: dict[str, list[Tensor]] = {"hidden": [], "matrix": [], "vector": []}
    for name, parameter in model.named_parameters():
        is_hidden = name in linear and name not in HEADS
        kind = "vector" if parameter.dim() < 2 else "hidden" if is_hidden else "matrix"
        if parameter.requires_grad:
            groups[kind].append(parameter)
    return groups["hidden"], groups["matrix"], groups["vector"]


def learning_rate_factor(train: TrainParams, step: int, steps: int) -> float:
    """Learning rate at ``step`` (0-based) of ``steps``, as a fraction of its peak.

    A linear warm-up reaches 1 at its last step. Unless ``schedule`` is constant, the rate falls to
    ``min_lr_ratio`` by the last step: along half a cosine (arXiv:1608.03983), linearly, or with wsd
    linearly over the last steps only (MiniCPM, arXiv:2404.06395). Two wsd runs with as many steps
    of warm-up are the same until the shorter one starts to decay::

        steps=6, warmup_share=1/3, min_lr_ratio=0.0
        cosine:                   0.5, 1.0, 0.853.., 0.5, 0.146.., 0.0
        linear:                   0.5, 1.0, 0.75, 0.5, 0.25, 0.0
        constant:                 0.5, 1.0, 1.0, 1.0, 1.0, 1.0
        wsd, decay_share=1/3:     0.5, 1.0, 1.0, 1.0, 0.5, 0.0

    """
    warmup_steps = round(train.warmup_share * steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done, left = step + 1 - warmup_steps, max(1, steps - warmup_steps)
    drop = 1 - train.min_lr_ratio
    match train.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return train.min_lr_ratio + drop * (1 + math.cos(math.pi * (done / left))) / 2
        case "linear":
            return 1 - drop * (done / left)
        case "wsd":
            decay_steps = min(left, round(train.decay_share * steps))
            decayed = done - (left - decay_steps)
            return 1.0 if decayed <= 0 else 1 - drop * (decayed / decay_steps)
