"""Measure whole training steps against litgpt and transformers, in tokens/s.

    pip install -e '.[bench]'
    python -m bench.throughput
    python -m bench.throughput --device cuda

A step is forward, loss, backward, clipping to a norm of 1, fused AdamW, and freeing the gradients.
Compiled contestants have the loss in their graph. Width, depth, vocabulary, context and batch are
the same, and numbers of weights are within 2 %; the rest is each project's own. Atlas runs its
`TrainStep`, checks included, on the fastest model that it would recommend: RoPE, RMSNorm, ReLU²,
heads of 128 channels. CPUs use float32, GPUs bfloat16. The contestants alternate, compiled and (the
peers) eager; medians, ratios and the utilization relative to a plain matrix product are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.config import ModelConfig
from atlas.model.counts import count
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from atlas.params.schema import load_params
from atlas.tokens.windows import TokenBatch
from atlas.training.distributed import DistributedContext
from atlas.training.metrics import matmul_flops
from atlas.training.train_step import TrainStep
from bench.model import SHAPES, Shape, config_of, litgpt, transformers, wait
from bench.shared import ROOT

SECONDS = 1.0  # per contestant and round: short, so that slow minutes affect all alike
WEIGHTS_MAY_DIFFER = 0.02
HEAD_SIZE = 128
CLIP = 1.0
Step = Callable[[Tensor], object]
PEERS: dict[str, dict[str, Callable[[Shape, str], nn.Module]]] = {
    "llama": {"litgpt": litgpt, "transformers": transformers},
    "gpt2": {"transformers": transformers},  # litgpt has no tied head, so it has more weights
}


@dataclass
class Contestant:
    """A model being trained.

    Attributes:
        step: one step on ids (B, T + 1).
        weights: number of parameters.
        seconds: per step, one for each round.
        repeats: steps per round.
    """

    step: Step
    weights: int
    seconds: list[float]
    repeats: int = 1

    @property
    def median(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.seconds)


def main() -> None:
    """Compare the contestants at each shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    print(
        f"{device}, {kind_of(device)}, {torch.get_num_threads()} threads; tokens/s, median (best)"
    )
    for shape in SHAPES:
        for family in PEERS:
            compare(shape, family, options.rounds, device)


def compare(shape: Shape, family: str, rounds: int, device: torch.device) -> None:
    """Print the speeds at one shape."""
    torch.manual_seed(1)
    torch.compiler.reset()
    ids = torch.randint(0, shape.vocab_size, (shape.batch, shape.context_length + 1), device=device)
    everyone: dict[str, Contestant] = {}
    for name, make in PEERS[family].items():
        for compiled in (False, True):
            label = f"{name}, {'compiled' if compiled else 'eager'}"
            everyone[label] = peer(make(shape, family).to(device), compiled)
    weights = next(iter(everyone.values())).weights
    config = matched(shape, family, weights)
    everyone["atlas"] = ours(config, shape, device)
    for contestant in everyone.values():
        warm_up(contestant, ids)
    rates = []
    for _ in range(rounds):
        rates.append(matmul_flops(device, kind_of(device)))
        for contestant in everyone.values():
            contestant.seconds.append(timed(contestant, ids))
    report(everyone, shape, family, config, statistics.median(rates))


def kind_of(device: torch.device) -> torch.dtype:
    """Return the fastest float type of a device."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


class MeanLoss(nn.Module):
    """A model together with its loss."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy (nats) at targets (B, T) after ids (B, T)."""
        return F.cross_entropy(self.model(ids).flatten(0, 1), targets.flatten())


def peer(model: nn.Module, compiled: bool) -> Contestant:
    """Train the model of another project in a plain loop."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, fused=True)
    loss_of = MeanLoss(model)
    if compiled:
        loss_of.compile()

    def step(ids: Tensor) -> None:
        with torch.autocast(ids.device.type, kind_of(ids.device), enabled=ids.is_cuda):
            loss = loss_of(ids[:, :-1], ids[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return Contestant(step, sum(p.numel() for p in model.parameters()), [])


def matched(shape: Shape, family: str, weights: int) -> ModelConfig:
    """Return our config of the same width and depth with as many weights."""
    size = min(HEAD_SIZE, shape.d_model)
    config = config_of(
        d_model=shape.d_model,
        n_layer=shape.n_layer,
        n_head=shape.d_model // size,
        n_kv_head=shape.d_model // size,
        context_length=shape.context_length,
        feed_forward="relu2",
        tied_head=family == "gpt2",
        vocab_size=shape.vocab_size,
    )
    widths = range(32, 8 * shape.d_model, 16)
    configs = [config.model_copy(update={"d_ff": d_ff}) for d_ff in widths]
    best = min(configs, key=lambda config: abs(count(config).total_parameters - weights))
    assert abs(count(best).total_parameters / weights - 1) < WEIGHTS_MAY_DIFFER
    return best


def ours(config: ModelConfig, shape: Shape, device: torch.device) -> Contestant:
    """Train with our TrainStep, compiled as in a long run."""
    train = load_params(ROOT / "params.yaml").train.model_copy(
        update={
            "batch_size": shape.batch,
            "grad_accum_steps": 1,
            "optimizer": "adamw",
            "activation_checkpointing": False,
            "max_grad_norm": CLIP,
            "lr": 1e-4,
            "precision": str(kind_of(device)).removeprefix("torch."),
        }
    )
    model = Decoder(config)
    initialize(model, 1)
    train_step = TrainStep(
        model.to(device), train, train.steps, DistributedContext(device), compiled=True
    )

    def step(ids: Tensor) -> None:
        mask = torch.ones_like(ids[:, 1:], dtype=torch.bool)
        train_step.update(TokenBatch(ids[:, :-1], ids[:, 1:], mask), train.steps // 2)

    return Contestant(step, model.parameter_count(), [])


def warm_up(contestant: Contestant, ids: Tensor) -> None:
    """Run the first steps, which compile; set how many steps fill a round."""
    for _ in range(4):
        contestant.step(ids)
    contestant.repeats = max(2, round(SECONDS / timed(contestant, ids)))


def timed(contestant: Contestant, ids: Tensor) -> float:
    """Measure the seconds of a step."""
    wait(ids.device)
    started = time.perf_counter()
    for _ in range(contestant.repeats):
        contestant.step(ids)
    wait(ids.device)
    return (time.perf_counter() - started) / contestant.repeats


def report(
    everyone: dict[str, Contestant], shape: Shape, family: str, config: ModelConfig, rate: float
) -> None:
    """Print speeds, ratios and utilization."""
    tokens = shape.batch * shape.context_length
    print(f"{family}, {shape}")
    for name, each in everyone.items():
        print(
            f"  {name:23} {tokens / each.median:10,.0f} ({tokens / min(each.seconds):,.0f})  "
            f"{each.weights:,} weights"
        )
    mine = everyone.pop("atlas")
    best = min(everyone, key=lambda name: everyone[name].median)
    ratios = sorted(
        theirs / ours for ours, theirs in zip(mine.seconds, everyone[best].seconds, strict=True)
    )
    ratio = statistics.median(ratios)
    used = tokens / mine.median * count(config).training_flops / rate
    print(
        f"  atlas against {best}: {ratio:.2f} times as fast (rounds "
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}); {used:.0%} of a matrix product's "
        f"{rate / 1e9:,.0f} GFLOP/s",
        flush=True,
    )


if __name__ == "__main__":
    main()
