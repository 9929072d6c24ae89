"""What learns: a model, its optimizers, and one step of theirs.

How large weights, gradients and updates are, tensor by tensor.

The precision of the matrix products: float32, or half of it with float32 weights.

bfloat16 has the range of float32. float16 has not: its gradients are scaled up so that small ones
do not vanish, and where a scaled one overflows, the step is left out and the scale halved
(arXiv:1710.03740).

What makes the same model faster, or smaller in memory: torch.compile, and recomputation.
"""

import math
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from atlas.errors import AtlasError, one_line
from atlas.model.block import Block, CrossBlock
from atlas.model.config import ModelConfig
from atlas.model.counts import count
from atlas.model.language_model import LanguageModel
from atlas.model.loss import cross_entropy_sum
from atlas.params.schema import TrainParams
from atlas.tokens.batches import TensorBatch
from atlas.training.distributed import World
from atlas.training.optimizers import Optimizers, make_optimizers
from atlas.training.schedule import learning_rate_factor

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


VARIABLE = "ATLAS_COMPILE"
RATES = {"cpu": 1e11, "cuda": 1e14}  # operations a second, roughly, of a usual machine
REPAID = 300.0  # seconds of training in which the minute of a compilation is won back


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer, from the first to the last; none of another model."""
    return [part for part in model.modules() if isinstance(part, Block | CrossBlock)]


def recompute_activations(model: LanguageModel) -> None:
    """Has each block keep its input alone, and compute the rest again for the backward pass.

    Chen et al. 2016, arXiv:1604.06174: the memory of one block in place of that of all, for a
    third more operations.
    """
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compilation_pays(config: ModelConfig, tokens: int, device: torch.device) -> bool:
    """Whether a training on so many tokens is long enough for torch.compile.

    ``ATLAS_COMPILE`` decides if it is 0 or 1. Else the operations do, at the rate of a usual
    machine and not at that of this one on this day: equal params give equal results.

    Raises:
        AtlasError: ``ATLAS_COMPILE`` is something else, or asks for what does not work here.
    """
    match os.environ.get(VARIABLE, "auto"):
        case "0":
            return False
        case "1":
            if not _compiler_works(device):
                raise AtlasError(f"{VARIABLE}=1: give 0 or auto, or a compiler that it can use")
            return True
        case "auto":
            seconds = tokens * count(config).training_flops / RATES.get(device.type, 1e12)
            return seconds > REPAID and device.type in RATES and _compiler_works(device)
        case value:
            raise AtlasError(f"{VARIABLE}={value}: give 0, 1 or auto")


def _compiler_works(device: torch.device) -> bool:
    """Tries torch.compile on a single addition; says why where it does not work."""
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:  # of the compiler, the linker, Triton: each has its own kind
        reason = one_line(error)[:120]
        print(f"note: torch.compile does not work here ({reason}): eager", file=sys.stderr)
        return False
    return True


def compile_parts(loss: nn.Module, world: World) -> None:
    """Has the loss of a model compiled at its first call, in place: whole, or block by block.

    Where several processes train together gradients are sent round block by block, while those
    of the next one are computed.
    """
    for part in blocks_of(loss) if world.size > 1 else [loss]:
        part.compile(dynamic=False)


@dataclass(frozen=True)
class Step:
    """What came of a step.

    Attributes:
        loss: of the batch, nats a token.
        norm: of the gradient, before it was clipped.
        tokens: that were read, in all processes.
        updated: whether the weights were changed.
        usable: whether they were, or the next step has a smaller scale to try with.
    """

    loss: float
    norm: float
    tokens: int
    updated: bool
    usable: bool


class LossOf(nn.Module):
    """The loss of a model, which is computed with it: one graph to torch.compile and to DDP."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Sum of the cross-entropies (nats) at targets (B, T) after ids (B, T)."""
        return cross_entropy_sum(self.model(ids), targets)


class Learner:
    """A model that learns from batches.

    Attributes:
        model: on its device, with its first weights.
        train: the params.
        steps: how many there will be, for the schedule.
        world: the processes that learn together.
        optimizers: that update the weights.
        precision: of the products.
        compiled: whether the model goes through torch.compile.
    """

    def __init__(
        self,
        model: LanguageModel,
        train: TrainParams,
        steps: int,
        world: World,
        *,
        compiled: bool = False,
    ) -> None:
        self.model = model.train()
        self.train, self.steps, self.world = train, steps, world
        if train.activation_checkpointing:
            recompute_activations(model)
        self.compiled = compiled
        loss = LossOf(model)
        if compiled:
            compile_parts(loss, world)
        self._loss = world.join(loss, model, blocks_of(model))
        self.optimizers = make_optimizers(model, train)  # FSDP2 has made new parameters
        self.precision = Precision(train.precision, world.device)

    def learn(self, batch: TensorBatch, step: int, watch: LayerNorms | None = None) -> Step:
        """One step (0-based) from this process's share of a batch.

        Unless loss and gradient are finite nothing is updated, and the gradient is left to look at;
        in float16, where the scale may be at fault, it is halved instead. An update that is made is
        shown to ``watch`` before.
        """
        self.optimizers.set_factor(learning_rate_factor(self.train, step, self.steps))
        if self.model.config.dropout:
            self._seed(step)
        loss, tokens = self.add_gradient(batch)
        self.precision.unscale(self.optimizers)
        length = norm(p.grad for p in self.model.parameters() if p.grad is not None)
        measured, size = torch.stack([loss, length]).tolist()  # here a GPU is waited for
        read = int(tokens)
        finite = math.isfinite(measured) and math.isfinite(size)
        if finite:
            if watch is not None:
                watch.before()
            limit = self.train.max_grad_norm
            if limit is not None and limit < size:  # else each would be multiplied by 1
                nn.utils.clip_grads_with_norm_(self.model.parameters(), limit, length)
            self.precision.update(self.optimizers)
        elif self.precision.may_skip():
            self.precision.skip()
        else:
            return Step(measured, size, read, updated=False, usable=False)
        self.optimizers.zero_grad()
        return Step(measured, size, read, updated=finite, usable=True)

    def add_gradient(self, batch: TensorBatch) -> tuple[Tensor, Tensor]:
        """Adds the gradient of a batch to the weights; its loss, and the tokens that were read.

        Whatever the parts and processes that it is cut in, each is divided by the tokens of the
        whole batch, so that they add up to it. What fills up a window stands on its right, where
        causal attention never sees it.
        """
        counts = torch.stack([(batch.targets >= 0).sum(), batch.mask.sum()])
        predicted, read = self.world.sum(counts)
        windows = self.train.batch_size // self.train.grad_accum_steps  # computed at once
        inputs, targets = torch.split(batch.inputs, windows), torch.split(batch.targets, windows)
        losses = []
        for number, (x, y) in enumerate(zip(inputs, targets, strict=True), start=1):
            with self.world.adding_up(self._loss, self.model, last=number == len(inputs)):
                with self.precision.compute():
                    loss = self._loss(x, y) / predicted
                # The processes take the mean of their gradients; wanted is the sum.
                self.precision.scaled(loss * self.world.size).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return self.world.sum(torch.stack(losses).sum()), read

    def _seed(self, step: int) -> None:
        """Dropout depends on seed, step and process alone: no state of it has to be kept."""
        sequence = np.random.SeedSequence([self.train.seed, step, self.world.rank])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
