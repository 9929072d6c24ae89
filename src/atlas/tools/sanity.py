"""Check in a minute whether a model can learn, before training it for hours.

    atlas overfit-batch
    atlas overfit-examples 10
    atlas gradients

A sound model memorizes a few windows, and its gradient reaches every weight (Karpathy 2019, "A
Recipe for Training Neural Networks").
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from atlas.errors import AtlasError
from atlas.model.language_model import choose_device
from atlas.params.schema import Params
from atlas.tokens.batches import TensorBatch
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.windows import TokenBatch, TrainingWindows
from atlas.tools.console import print_table
from atlas.training.distributed import DistributedContext
from atlas.training.train_step import TrainStep
from atlas.training.trainer import LOWER_LR, build_model

MEMORIZED = 0.1  # nats per token: the right token has a probability of about 0.9
SHOW_EVERY = 20  # steps
VANISHING, EXPLODING = 1e-5, 1e5  # gradient / weight, relative to the median tensor
FLOW_BATCHES = 4
Batches = Iterator[TensorBatch]


@dataclass(frozen=True)
class Flow:
    """Gradient of one weight tensor; sizes are root mean squares."""

    name: str
    weight: float
    gradient: float  # 0 without one
    zeros: float  # fraction of the gradient that is exactly 0
    verdict: str  # the problem, or empty


def overfit(params: Params, tokens: Path, windows: int, steps: int) -> int:
    """Train on the same few windows until the model has memorized them; return the steps it took.

    The project's params apply, but dropout, weight decay and schedule are off: they hinder this.
    """
    plain = {"weight_decay": 0.0, "schedule": "constant", "warmup_share": 0.0}
    changes = plain | {"batch_size": windows, "grad_accum_steps": 1}
    train_step, batches = _begin(params, changes, tokens)
    batch = next(batches)
    learned = int((batch.targets >= 0).sum())
    print(f"{windows} windows, {learned} tokens to memorize")
    loss = float("nan")
    for step in range(steps):
        result = train_step.update(batch, step)
        loss = result.loss
        if result.failed:
            raise AtlasError(f"the loss is {loss:g} at step {step + 1}. {LOWER_LR}")
        if step % SHOW_EVERY == 0 or loss < MEMORIZED:
            print(f"step {step + 1}: loss {loss:.4f}, gradient {result.grad_norm:.3g}")
        if loss < MEMORIZED:
            print(f"memorized in {step + 1} steps")
            return step + 1
    raise AtlasError(
        f"after {steps} steps the loss is still {loss:.3f} nats per token, and a sound model gets "
        f"below {MEMORIZED:g}: try another train.lr (now {params.train.lr:g}) or more --steps; if "
        "neither helps, run `atlas gradients`"
    )


def gradient_flow(params: Params, tokens: Path) -> list[Flow]:
    """Measure the mean gradient of each weight tensor of a new model over a few batches in float32.

    With ``train.init=zero`` or LoRA, the model is trained for one step first, because a matrix of
    zeros blocks the gradient of the layers before it. Frozen weights are left out.
    """
    train_step, batches = _begin(params, {"precision": "float32", "warmup_share": 0.0}, tokens)
    if params.train.init == "zero" or params.train.lora.rank is not None:
        train_step.update(next(batches), 0)
    for batch in itertools.islice(batches, FLOW_BATCHES):
        train_step.backward(batch)
    for parameter in train_step.model.parameters():
        if parameter.grad is not None:
            parameter.grad /= FLOW_BATCHES
    parameters = dict(train_step.model.named_parameters())
    if params.train.freeze or params.train.lora.rank is not None:
        parameters = {name: each for name, each in parameters.items() if each.requires_grad}
    ratios = [_ratio(each) for each in parameters.values() if each.grad is not None]
    usual = torch.tensor(ratios).median().item()
    return [_flow(name, parameter, usual) for name, parameter in parameters.items()]


def print_flow(flows: list[Flow]) -> None:
    """Print a table of the weights, from the embedding to the head."""
    rows = [
        (
            flow.name,
            f"{flow.weight:.2e}",
            f"{flow.gradient:.2e}",
            f"{flow.gradient / flow.weight:.2e}" if flow.weight else "-",
            f"{flow.zeros:.0%}",
            flow.verdict,
        )
        for flow in flows
    ]
    print_table(("weights", "size", "gradient", "ratio", "zeros", ""), rows, right=range(1, 5))
    wrong = sum(bool(flow.verdict) for flow in flows)
    sound = "every weight has a sound gradient"
    print(f"{wrong} of {len(flows)} weights have a problem" if wrong else sound)


def _begin(params: Params, changes: Mapping[str, Any], tokens: Path) -> tuple[TrainStep, Batches]:
    """Return the train step of a new model without dropout, in this process only, and batches.

    ``changes`` override values of ``params.train``.
    """
    if params.model.kind == "bigram":
        raise AtlasError("model.kind is bigram: it is counted and has no gradient")
    index, train = TokenIndex.read(tokens), params.train.model_copy(update=changes)
    shape = params.model.model_copy(update={"dropout": 0.0})
    context = DistributedContext(choose_device())
    model = build_model(params.model_copy(update={"train": train, "model": shape}), index, context)
    split = TokenSplit(tokens, "train", train.max_train_tokens)
    length, mix = model.config.sequence_length, params.corpus.mix
    data = TrainingWindows(split, length, train.batch_size, train.seed, mix)
    train_step = TrainStep(model, train, train.steps, context)
    rows = (torch.from_numpy(data.rows(step)) for step in itertools.count())
    batches = (TokenBatch.from_rows(each.to(context.device), index) for each in rows)
    return train_step, batches


def _flow(name: str, parameter: torch.Tensor, usual: float) -> Flow:
    weight, grad = _size(parameter), parameter.grad
    if grad is None:
        return Flow(name, weight, 0.0, 1.0, "no gradient reaches it")
    gradient, ratio = _size(grad), _ratio(parameter)
    verdict = ""
    if not torch.isfinite(grad).all():
        verdict = "not finite"
    elif gradient == 0:
        verdict = "all zero"
    elif ratio < VANISHING * usual:
        verdict = "vanishing"
    elif weight and ratio > EXPLODING * usual:
        verdict = "exploding"
    return Flow(name, weight, gradient, (grad == 0).float().mean().item(), verdict)


def _ratio(parameter: torch.Tensor) -> float:
    """Size of the gradient relative to that of the weight."""
    return 0.0 if parameter.grad is None else _size(parameter.grad) / max(_size(parameter), 1e-12)


def _size(tensor: torch.Tensor) -> float:
    return tensor.detach().square().mean().sqrt().item()
