"""Which optimizer updates which weights, and with how much decay."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from atlas.params import TrainParams
from atlas.training.steps.muon import Muon

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
