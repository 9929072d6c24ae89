"""One optimizer step: the gradient of a batch, clipping and the update.

Precision, torch.compile (for speed) and activation checkpointing (for memory) are set up here.

B batch, T context length, V vocabulary.
"""

import logging
import math
import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils import deterministic
from torch.utils.checkpoint import checkpoint

from atlas.errors import AtlasError, one_line
from atlas.model.language_model import LanguageModel
from atlas.model.loss import cross_entropy_sum
from atlas.model.transformer import Block, Decoder
from atlas.params.schema import TrainParams
from atlas.params.settings import settings
from atlas.tokens.batches import TensorBatch
from atlas.training.distributed import DistributedContext
from atlas.training.optimizers import learning_rate_factor, make_optimizers

LAYER_COLUMNS = ("step", "layer", "weights", "gradient", "update")
MIN_SCALE = 1.0  # an overflow at this scale or below is not due to the scale
TYPICAL_FLOPS = {"cpu": 1e11, "cuda": 1e14}  # per second
MIN_SECONDS = 300.0  # of training, to earn back a minute of compilation
DEEP = 8  # blocks; with more, compiling the whole model would take minutes
MIN_WIDTH = 256  # d_model from which bfloat16 gains: 0.8 times the speed at 128, 1.8 at 384

logger = logging.getLogger(__name__)


def make_deterministic(kernels: Path) -> None:
    """Make equal inputs give equal bytes, also on a GPU; keep compiled kernels in a folder."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # nothing reads it
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(kernels))


def should_compile(flops: float, device: torch.device) -> bool:
    """Decide whether training with this many operations is long enough for torch.compile.

    ``ATLAS_COMPILE`` decides if it is 0 or 1. Otherwise the estimated time does: operations divided
    by a fixed typical speed, not the measured one, so that equal params give equal results.
    """
    choice = settings().compile
    if choice == "auto":
        seconds = flops / TYPICAL_FLOPS.get(device.type, math.inf)
        return seconds > MIN_SECONDS and compiler_works(device)
    if choice == "1" and not compiler_works(device):
        raise AtlasError("ATLAS_COMPILE=1: install a C++ compiler, or use 0 or auto")
    return choice == "1"


def compiler_works(device: torch.device) -> bool:
    """Try torch.compile on one operation; log the reason if it fails."""
    try:
        torch.compile(torch.neg)(torch.ones(8, device=device))
    except Exception as error:  # compiler, linker and Triton each raise their own kind
        reason = one_line(error)[:120]
        logger.warning("torch.compile does not work here (%s); training runs uncompiled", reason)
        return False
    return True


def has_bfloat16(device: torch.device) -> bool:
    """True if a device multiplies bfloat16 in hardware: AMX or AVX512-BF16 on a CPU."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(found.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def choose_precision(precision: str, d_model: int, context: DistributedContext) -> str:
    """Resolve ``train.precision=auto`` by machine and width; every process must call this.

    Products of less than 256 channels are too small to earn back the conversions.
    """
    if precision != "auto":
        return precision
    is_slow = context.any(not has_bfloat16(context.device))  # in any of the processes
    if is_slow or d_model < MIN_WIDTH:
        why = "no bfloat16 in hardware" if is_slow else f"d_model below {MIN_WIDTH}"
        choice = "float32"
    else:
        why, choice = "in hardware", "bfloat16"
    if context.is_main:
        logger.info("train.precision=auto: %s (%s)", choice, why)
    return choice


def compile_for_training(module: nn.Module) -> None:
    """Compile the forward pass of training; evaluation has other shapes and stays eager."""
    eager, compiled = module.forward, torch.compile(module.forward, dynamic=False)

    def forward(*args: Any, **options: Any) -> Any:
        return (compiled if module.training else eager)(*args, **options)

    module.forward = forward


class Precision:
    """Mixed precision: matrix products in ``dtype``, weights in float32.

    bfloat16 has the range of float32. float16 does not: the loss is scaled up so that small
    gradients do not become 0, and if a scaled gradient overflows, the step is skipped and the
    scale halved (arXiv:1710.03740).
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self._device, self.name = device.type, name
        self.dtype: torch.dtype = getattr(torch, name)
        self.scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Run the forward pass in this precision."""
        full = self.dtype == torch.float32
        return nullcontext() if full else torch.autocast(self._device, self.dtype)

    def lower_scale(self) -> bool:
        """Halve the scale after an overflow; return False if the scale cannot be its cause."""
        scale = self.scaler.get_scale()
        if not self.scaler.is_enabled() or scale <= MIN_SCALE:
            return False
        self.scaler.update(scale / 2)
        return True


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
        self._before: dict[str, tuple[Tensor, Tensor]] = {}  # weights, norm of the gradient

    @torch.no_grad()
    def record(self) -> None:
        """Remember the weights that are trained and the norms of their gradients."""
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            gradients = [] if parameter.grad is None else [parameter.grad]
            self._before[name] = parameter.detach().clone(), total_norm(gradients)

    @torch.no_grad()
    def rows(self, step: int) -> list[dict[str, int | float | str]]:
        """One row of metrics/layers.csv per weight tensor; none if the update was skipped."""
        after = dict(self._model.named_parameters())
        return [
            {
                "step": step,
                "layer": name,
                "weights": total_norm([weights]).item(),
                "gradient": gradient_norm.item(),
                "update": total_norm([after[name].detach() - weights]).item(),
            }
            for name, (weights, gradient_norm) in self._before.items()
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

    def forward(self, ids: Tensor, targets: Tensor, begins: Tensor | None = None) -> Tensor:
        """Sum of the cross-entropies (nats) at targets (B, T) after ids (B, T).

        ``begins`` (B, T) is True where a document begins that attends to no other.
        """
        if isinstance(self.model, Decoder):
            loss: Tensor = self.model(ids, targets=targets, begins=begins)
            return loss
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
        blocks: list[nn.Module] = [part for part in model.modules() if isinstance(part, Block)]
        loss = ModelWithLoss(model)
        self.compiled = compiled
        # Blocks are compiled one by one if there are many, as equal blocks share their code, and
        # with several processes, to send the gradients of one while computing the next.
        if compiled and (context.size > 1 or len(blocks) > DEEP):
            for block in blocks:
                compile_for_training(block)
        elif compiled:
            loss.compile(dynamic=False)
        if params.activation_checkpointing:
            # Save only the input of each block, and recompute the rest in the backward pass: a
            # third more operations (Chen et al. 2016, arXiv:1604.06174).
            for block in blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        self._loss = context.wrap(loss, model, blocks)
        self.optimizers = make_optimizers(model, params)  # after FSDP2 has replaced the parameters
        precision = choose_precision(params.precision, model.config.d_model, context)
        self.precision = Precision(precision, context.device)

    def update(
        self, batch: TensorBatch, step: int, norms: LayerNormRecorder | None = None
    ) -> StepResult:
        """Update the weights in step ``step`` (0-based), from this process's rows of a batch.

        If the loss or the gradient is not finite, the weights stay as they are: float16 halves its
        scale; otherwise the step has failed and its gradient is kept for the error message.
        """
        params, parameters = self.params, list(self.model.parameters())
        self.optimizers.scale_lr(learning_rate_factor(params, step, self.steps))
        if self.model.config.dropout:
            # Seeded by seed, step and process, so a resumed run needs no saved random state.
            sequence = np.random.SeedSequence([params.seed, step, self.context.rank])
            torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
        loss, tokens = self.backward(batch)
        for member in self.optimizers.members:
            self.precision.scaler.unscale_(member)
        norm = total_norm(p.grad for p in parameters if p.grad is not None)
        loss_value, grad_norm = torch.stack([loss, norm]).tolist()  # waits for a GPU
        finite = math.isfinite(loss_value) and math.isfinite(grad_norm)
        if finite:
            if norms is not None:
                norms.record()
            limit = params.max_grad_norm
            if limit is not None and limit < grad_norm:  # else each would be multiplied by 1
                nn.utils.clip_grads_with_norm_(parameters, limit, norm)
            self.optimizers.step()
            self.precision.scaler.update()
        elif not self.precision.lower_scale():
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
        micro_batches = list(batch.split(rows))
        losses = []
        for number, part in enumerate(micro_batches, start=1):
            with self.context.gradient_sync(self._loss, self.model, number == len(micro_batches)):
                with self.precision.autocast():
                    loss = self._loss(part.inputs, part.targets, part.begins) / predicted
                # The processes average their gradients; multiplying by their number gives the sum.
                self.precision.scaler.scale(loss * self.context.size).backward()
            losses.append(loss.detach())
        return self.context.all_reduce(torch.stack(losses).sum()), read
