"""One optimizer step: gradient of a batch, clipping, update.

B batch, T context length, V vocabulary.
"""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from atlas.model.language_model import LanguageModel
from atlas.model.loss import cross_entropy_sum
from atlas.params.schema import TrainParams
from atlas.tokens.batches import TensorBatch
from atlas.training.compilation import blocks_of, checkpoint_activations, compile_loss
from atlas.training.distributed import DistributedContext
from atlas.training.optimizers import Optimizers, make_optimizers
from atlas.training.schedule import learning_rate_factor

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
LAYER_COLUMNS = ("step", "layer", "weights", "gradient", "update")
MIN_SCALE = 1.0  # an overflow below it has another cause than precision


class Precision:
    """Mixed precision: matrix products in ``dtype``, weights in float32.

    bfloat16 has the range of float32. float16 has not: the loss is scaled up so that small
    gradients do not become 0, and if a scaled gradient overflows, the step is skipped and the
    scale halved (arXiv:1710.03740).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device = device.type
        self.dtype = DTYPES.get(name, torch.float32)
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Run the forward pass in this precision."""
        full = self.dtype == torch.float32
        return nullcontext() if full else torch.autocast(self._device, self.dtype)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss to start the backward pass from."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizers: Optimizers) -> None:
        """Bring the gradients back to their true size."""
        if self._scaler.is_enabled():
            for member in optimizers.members:
                self._scaler.unscale_(member)

    def step(self, optimizers: Optimizers) -> None:
        """Update the weights; the gradients must be finite."""
        optimizers.step()
        self._scaler.update()

    def can_lower_scale(self) -> bool:
        """True if the scale may be the reason for a gradient that is not finite."""
        return self._scaler.is_enabled() and self._scaler.get_scale() > MIN_SCALE

    def halve_scale(self) -> None:
        """Halve the scale for the next step."""
        self._scaler.update(self._scaler.get_scale() / 2)

    def state_dict(self) -> dict[str, Any]:
        """The state of the scaler; empty unless float16."""
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state."""
        if state:
            self._scaler.load_state_dict(state)


def total_norm(tensors: Iterable[Tensor]) -> Tensor:
    """The L2 norm of all tensors together, including the shards of other processes."""
    total = nn.utils.get_total_norm(list(tensors))
    return total.full_tensor() if isinstance(total, DTensor) else total


class LayerNormRecorder:
    """Measures the L2 norm of each weight tensor, its gradient and its update in one step.

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
    def rows(self, step: int) -> list[dict[str, int | float | str]]:
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


@dataclass(frozen=True)
class StepResult:
    """Result of one optimizer step."""

    loss: float  # mean over the batch, nats per token
    grad_norm: float  # before clipping
    tokens: int  # read, in all processes
    updated: bool  # False if the weights did not change
    failed: bool = False  # loss or gradient is not finite, and no lower scale is left to try


class ModelWithLoss(nn.Module):
    """A model and its loss as one module, and so one graph for torch.compile and DDP."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Sum of the cross-entropies (nats) at targets (B, T) after ids (B, T)."""
        return cross_entropy_sum(self.model(ids), targets)


class TrainStep:
    """A model with its optimizers; ``steps`` is the total number, for the schedule."""

    def __init__(
        self,
        model: LanguageModel,
        params: TrainParams,
        steps: int,
        context: DistributedContext,
        *,
        compiled: bool = False,
    ) -> None:
        self.model = model.train()
        self.params, self.steps, self.context = params, steps, context
        if params.activation_checkpointing:
            checkpoint_activations(model)
        self.compiled = compiled
        loss = ModelWithLoss(model)
        if compiled:
            compile_loss(loss, context.size)
        self._loss = context.wrap(loss, model, blocks_of(model))
        self.optimizers = make_optimizers(model, params)  # after FSDP2 has replaced the parameters
        self.precision = Precision(params.precision, context.device)

    def update(
        self, batch: TensorBatch, step: int, norms: LayerNormRecorder | None = None
    ) -> StepResult:
        """Make step number ``step`` (0-based) from this process's rows of a batch.

        If the loss or the gradient is not finite, the weights stay as they are: float16 halves its
        scale; otherwise the step has failed and its gradient is kept for the error message.
        """
        params, parameters = self.params, list(self.model.parameters())
        self.optimizers.scale_lr(learning_rate_factor(params, step, self.steps))
        if self.model.config.dropout:
            self._seed_dropout(step)
        loss, tokens = self.backward(batch)
        self.precision.unscale(self.optimizers)
        norm = total_norm(p.grad for p in parameters if p.grad is not None)
        loss_value, grad_norm = torch.stack([loss, norm]).tolist()  # waits for a GPU
        finite = math.isfinite(loss_value) and math.isfinite(grad_norm)
        if finite:
            if norms is not None:
                norms.record()
            limit = params.max_grad_norm
            if limit is not None and limit < grad_norm:  # else each would be multiplied by 1
                nn.utils.clip_grads_with_norm_(parameters, limit, norm)
            self.precision.step(self.optimizers)
        elif self.precision.can_lower_scale():
            self.precision.halve_scale()
        else:
            return StepResult(loss_value, grad_norm, int(tokens), updated=False, failed=True)
        self.optimizers.zero_grad()
        return StepResult(loss_value, grad_norm, int(tokens), updated=finite)

    def backward(self, batch: TensorBatch) -> tuple[Tensor, Tensor]:
        """Add the gradient of a batch to the weights; return its mean loss and its tokens.

        Micro-batches and processes add up to the mean over the tokens of the whole batch, because
        each divides by that number. Padding is on the right, where causal attention never looks.
        """
        counts = torch.stack([(batch.targets >= 0).sum(), batch.mask.sum()])
        predicted, read = self.context.all_reduce(counts)
        rows = self.params.batch_size // self.params.grad_accum_steps  # of a micro-batch
        inputs, targets = torch.split(batch.inputs, rows), torch.split(batch.targets, rows)
        losses = []
        for number, (x, y) in enumerate(zip(inputs, targets, strict=True), start=1):
            with self.context.gradient_sync(self._loss, self.model, number == len(inputs)):
                with self.precision.autocast():
                    loss = self._loss(x, y) / predicted
                # The processes average their gradients; multiplying by their number gives the sum.
                scaled = self.precision.scale_loss(loss * self.context.size)
                scaled.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return self.context.all_reduce(torch.stack(losses).sum()), read

    def _seed_dropout(self, step: int) -> None:
        """Seed by seed, step and process, so that a resumed run needs no saved random state."""
        sequence = np.random.SeedSequence([self.params.seed, step, self.context.rank])
        torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
