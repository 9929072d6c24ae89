"""Measure how long training waits for batches.

    python -m bench.batches

Random tokens, as many as in the shards of a 100 MB text, are read in the batches of the preset
tiny: alone, with 0, 1 and 2 workers, and while the tiny model trains on two threads. All alternate
in rounds; medians are printed.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from atlas.cleaning.documents import Split
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize
from atlas.params.schema import Params, load_params
from atlas.tokens.batches import BatchLoader
from atlas.tokens.shards import ShardWriter, SplitIndex, TokenIndex, TokenSplit, shard_path
from atlas.tokens.windows import TrainingWindows
from atlas.training.distributed import DistributedContext
from atlas.training.train_step import TrainStep
from bench.model import SHA, config_of
from bench.shared import ROOT

DOCUMENT = 700  # tokens, on average
CPU = torch.device("cpu")
Layout = Literal["packed", "padded"]
LAYOUTS: tuple[Layout, ...] = ("packed", "padded")


def main() -> None:
    """Write the tokens, read and train in turn, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tokens", type=int, default=35_000_000)
    parser.add_argument("--steps", type=int, default=100, help="training steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    params = load_params(ROOT / "params.yaml")
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            write_tokens(Path(folder), layout, options.tokens, params.tokenizer.vocab_size)
            compare(Path(folder), layout, params, options.steps, options.rounds)


def write_tokens(folder: Path, layout: Layout, count: int, vocab_size: int) -> None:
    """Write documents of random tokens and lengths, and a small val split."""
    generator = np.random.default_rng(1)
    splits: dict[Split, SplitIndex] = {}
    sizes: dict[Split, int] = {"train": count, "val": 100_000}
    for split, tokens in sizes.items():
        writer = ShardWriter(shard_path(folder, split, 0), vocab_size, SHA)
        while writer.tokens < tokens:
            length = int(generator.geometric(1 / DOCUMENT))
            writer.write(generator.integers(3, vocab_size, length), [length])
        writer.close()
        splits[split] = SplitIndex([writer.tokens], writer.documents, writer.tokens)
    TokenIndex(vocab_size, 1, 2, None, SHA, layout, splits).write(folder)


def compare(folder: Path, layout: Layout, params: Params, steps: int, rounds: int) -> None:
    """Print the speeds of reading and training, and how long training waits."""
    length, train = params.model.context_length, params.train
    split = TokenSplit(folder, "train")
    windows = TrainingWindows(split, length, train.batch_size, train.seed)
    config = config_of(vocab_size=params.tokenizer.vocab_size)
    model = Decoder(config)
    initialize(model, train.seed)
    train_step = TrainStep(model, train, train.steps, DistributedContext(CPU))
    reading: dict[int, list[float]] = {0: [], 1: [], 2: []}
    speeds, waits = [], []
    for _ in range(rounds):
        for workers, found in reading.items():
            found.append(reading_speed(BatchLoader(windows, CPU, workers), 20 * steps))
        speed, wait = training_speed(train_step, windows, steps)
        speeds.append(speed)
        waits.append(wait)
    trains = statistics.median(speeds)
    print(f"{layout}, {len(split):,} tokens: training {trains:,.0f} tokens/s")
    median, most = (100 * share for share in (statistics.median(waits), max(waits)))
    print(f"  {median:.2f} % of the time waiting for batches (at most {most:.2f} %)")
    for workers, found in reading.items():
        reads = statistics.median(found)
        print(
            f"  reading with {workers} workers: {reads:,.0f} tokens/s, {reads / trains:,.0f} times"
        )


def reading_speed(batches: BatchLoader, count: int) -> float:
    """Measure tokens/s of reading alone, excluding the start of workers."""
    reader = batches.read()
    next(reader)
    started = time.perf_counter()
    tokens = sum(int(batch.mask.sum()) for batch in itertools.islice(reader, count))
    seconds = time.perf_counter() - started
    reader.close()
    return tokens / seconds


def training_speed(
    train_step: TrainStep, windows: TrainingWindows, steps: int
) -> tuple[float, float]:
    """Measure tokens/s of training, and the fraction of time it waits for batches."""
    reader = BatchLoader(windows, CPU, 0).read()
    tokens, waited = 0, 0.0
    started = time.perf_counter()
    for step in range(steps):
        before = time.perf_counter()
        batch = next(reader)
        waited += time.perf_counter() - before
        tokens += train_step.update(batch, step).tokens
    seconds = time.perf_counter() - started
    return tokens / seconds, waited / seconds


if __name__ == "__main__":
    main()
