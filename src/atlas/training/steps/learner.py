"""What learns: a model, its optimizers, and one step of theirs."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from atlas.model.language_model import LanguageModel
from atlas.params import TrainParams
from atlas.tokens.batches import TensorBatch
from atlas.training.steps.compilation import blocks_of, compile_parts, recompute_activations
from atlas.training.steps.loss import cross_entropy_sum
from atlas.training.steps.norms import LayerNorms, norm
from atlas.training.steps.optimizers import make_optimizers
from atlas.training.steps.precision import Precision
from atlas.training.steps.schedule import learning_rate_factor
from atlas.training.steps.world import World


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
        if train.recompute:
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
            if 0 < self.train.clip_norm < size:  # else each would be multiplied by 1
                nn.utils.clip_grads_with_norm_(
                    self.model.parameters(), self.train.clip_norm, length
                )
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
        windows = self.train.batch_size // self.train.accumulation  # computed at once
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
