"""Measure training with two processes against one: DDP and FSDP2 over gloo.

    python -m bench.processes
    python -m bench.processes --processes 4 --batch-size 16

The model and optimizer of params.yaml train on random tokens at the same global batch. One process,
several, and one process with as many threads (the usual choice on a CPU) alternate, each started
anew; tokens/s exclude the first few steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch

from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from atlas.params.schema import load_params
from atlas.tokens.windows import TokenBatch
from atlas.training.distributed import distributed_context
from atlas.training.train_step import TrainStep
from bench.model import config_of
from bench.shared import ROOT

WARM_UP = 5
STEPS = 30


def main() -> None:
    """Alternate one process and several; or, started by torchrun, train as one of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--batch-size", type=int, help="global; default: that of params.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    batch = options.batch_size or load_params(ROOT / "params.yaml").train.batch_size
    if options.worker:
        work(batch)
        return
    count = options.processes
    contestants = {  # processes, threads of each, strategy
        "1": (1, 1, "ddp"),
        f"1 of {count} threads": (1, count, "ddp"),
        f"{count}, DDP": (count, 1, "ddp"),
        f"{count}, FSDP2": (count, 1, "fsdp"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            speeds[name].append(measured(*contestant, batch))
    print(f"{batch} windows per step, tokens/s, median")
    for name, found in speeds.items():
        ratios = sorted(mine / one for mine, one in zip(found, speeds["1"], strict=True))
        print(
            f"  {name:14} {statistics.median(found):9,.0f}   {statistics.median(ratios):.2f} times "
            f"one (rounds {ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def measured(processes: int, threads: int, strategy: str, batch: int) -> float:
    """Measure tokens/s in new processes."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    command = [sys.executable, "-m", *(torchrun if processes > 1 else []), "bench.processes"]
    paths = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
    done = subprocess.run(
        [*command, "--worker", "--batch-size", str(batch)],
        cwd=ROOT,
        env={
            **os.environ,
            "ATLAS_STRATEGY": strategy,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": paths,
        },
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout.splitlines()[-1]))


def work(batch_size: int) -> None:
    """Train; the first process prints the tokens/s of all together."""
    params = load_params(ROOT / "params.yaml")
    train = params.train.model_copy(update={"batch_size": batch_size})
    with distributed_context(torch.device("cpu")) as context:
        config = config_of(vocab_size=params.tokenizer.vocab_size)
        model = Decoder(config)
        initialize(model, 1)
        train_step = TrainStep(model, train, train.steps, context)
        rows = torch.randint(0, config.vocab_size, (batch_size, config.context_length + 1))
        rows = rows[context.local_rows(batch_size)]
        batch = TokenBatch(
            rows[:, :-1], rows[:, 1:], torch.ones_like(rows[:, 1:], dtype=torch.bool)
        )
        for step in range(WARM_UP):
            train_step.update(batch, step)
        started = time.perf_counter()
        tokens = sum(
            train_step.update(batch, step).tokens for step in range(WARM_UP, WARM_UP + STEPS)
        )
        if context.is_main:
            print(tokens / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
