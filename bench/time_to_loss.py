"""Measure training time to a val loss: our preset against nanoGPT's published recipe.

    pip install -e '.[bench]'
    ATLAS_MIRROR=... python -m bench.time_to_loss     # a mirror only without a network
    python -m bench.time_to_loss --device cuda

Both train on tiny Shakespeare by characters, with the same device and threads. The recipe is from
nanoGPT's README: GPT-2 (of transformers) with 4 layers, 128 wide, T 64, B 12, 2,000 steps of AdamW
on a CPU; 6 layers, 384 wide, T 256, B 64, 5,000 steps on a GPU. Ours is the preset `speedrun-cpu`
or `speedrun-gpu`, through the pipeline's own functions. They alternate: a slice of the recipe's
steps, a whole run of ours with another seed, eager and then compiled, then the next slice. (The
pipeline itself would not compile a run of seconds.)

Times cover the steps, including reading batches. Compilation happens before, in a few steps whose
weights are discarded, and is printed separately. Val loss, in nats per character over the whole val
split (the last tenth of the text), is measured between steps and not timed.
"""

import argparse
import itertools
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from atlas.cleaning.clean import clean_corpus
from atlas.cleaning.documents import read_documents
from atlas.corpora.fetch import fetch_corpus
from atlas.model.loss import mean_loss
from atlas.params.presets import with_presets
from atlas.params.schema import Params
from atlas.tokens.batches import BatchLoader, reader_count
from atlas.tokens.encode import encode_corpus
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.train_tokenizer import make_tokenizer
from atlas.tokens.windows import EvaluationWindows, TrainingWindows
from atlas.training.distributed import DistributedContext
from atlas.training.train_step import TrainStep
from atlas.training.trainer import build_model, total_steps
from bench.model import wait
from bench.nanogpt import RECIPES, VAL_BATCH, LossCurve, NanoGpt
from bench.shared import ROOT


class Atlas:
    """Our preset, run through the pipeline's own functions."""

    def __init__(self, params: Params, folder: Path, device: torch.device) -> None:
        self.params, self.folder, self.device = params, folder, device
        mirror = os.environ.get("ATLAS_MIRROR")
        unfinished = folder / "unfinished"
        fetch_corpus(params.corpus, folder / "raw", mirror, unfinished)
        clean_corpus(folder / "raw", folder / "clean", params.clean, unfinished)
        make_tokenizer(folder / "clean/train", params.tokenizer).save(folder / "tokenizer")
        encode_corpus(folder / "clean", folder / "tokenizer", folder / "tokens", params.tokenize)
        self.index = TokenIndex.read(folder / "tokens")
        self.val = TokenSplit(folder / "tokens", "val")

    def text(self, split: str) -> str:
        """Return the clean text of a split."""
        return "".join(document.text for document in read_documents(self.folder / "clean" / split))

    def run(self, seed: int, *, compiled: bool, most: int | None = None) -> tuple[LossCurve, float]:
        """Train from initial weights; return the times and the final val loss."""
        params = self.params.model_copy(
            update={"train": self.params.train.model_copy(update={"seed": seed})}
        )
        train = params.train
        length = train.sequence_length or params.model.context_length
        data = TrainingWindows(
            TokenSplit(self.folder / "tokens", "train"), length, train.batch_size, seed
        )
        steps = total_steps(train, data.per_epoch)
        context = DistributedContext(self.device)
        model = build_model(params, self.index, context)
        train_step = TrainStep(model, train, steps, context, compiled=compiled)
        curve = LossCurve()
        reader = BatchLoader(data, self.device, reader_count(self.device)).read()
        started = time.perf_counter()
        for step in range(most or steps):
            train_step.update(next(reader), step)
        wait(self.device)
        curve.seconds = time.perf_counter() - started
        reader.close()
        val = EvaluationWindows(self.val, length, VAL_BATCH)
        with torch.compiler.set_stance("force_eager"), train_step.precision.autocast():
            loss = mean_loss(model, val.all())
        curve.losses.append((curve.seconds, loss))
        return curve, loss


def main() -> None:
    """Alternate both and print their times."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5, help="runs of ours, each with another seed")
    parser.add_argument("--steps", type=int, help="steps of the recipe, to try the benchmark out")
    options = parser.parse_args()
    device = torch.device(options.device)
    recipe = RECIPES[device.type]
    steps = options.steps or recipe.steps
    print(f"{device}, {torch.get_num_threads()} threads, to a val loss of {recipe.target}")
    with tempfile.TemporaryDirectory() as folder:
        atlas = Atlas(with_presets(ROOT, [recipe.preset]), Path(folder), device)
        train, val = atlas.text("train"), atlas.text("val")
        print(f"{len(train):,} characters of train, {len(val):,} of val")
        started = time.perf_counter()
        atlas.run(seed=0, compiled=True, most=3)
        compilation = time.perf_counter() - started
        theirs = NanoGpt(recipe, train, val, device)
        ours: dict[str, list[LossCurve]] = {"eager": [], "compiled": []}
        for number, (first, last) in enumerate(slices(steps, options.runs), start=1):
            advance(theirs, first, last, steps)
            for name, found in ours.items():
                curve, loss = atlas.run(seed=number, compiled=name == "compiled")
                found.append(curve)
                print(f"atlas {name}, seed {number}: {curve.seconds:.2f} s, val loss {loss:.4f}")
    target = reference(theirs.curve, recipe.target)
    for name, found in ours.items():
        report(name, theirs.curve, found, target)
    print(f"compilation, not included: {compilation:.0f} s (less with a warm cache)")


def slices(steps: int, count: int) -> Iterator[tuple[int, int]]:
    """Split the steps into even slices."""
    ends = [steps * number // count for number in range(count + 1)]
    yield from itertools.pairwise(ends)


def advance(recipe: NanoGpt, first: int, last: int, steps: int) -> None:
    """Run a slice of the recipe's steps, validating often near the end."""
    often = max(1, steps // 80)
    for begin in range(first, last, often):
        end = min(begin + often, last)
        recipe.steps(begin, end)
        if end >= 0.8 * steps:
            loss = recipe.validate()
            print(
                f"recipe, step {end}: {recipe.curve.seconds:.1f} s, val loss {loss:.4f}",
                flush=True,
            )


def reference(theirs: LossCurve, known: float) -> float:
    """Return the target: the reported loss of the recipe, or its final loss if that is higher."""
    final = theirs.losses[-1][1]
    print(f"recipe: {theirs.seconds:.1f} s of steps, final val loss {final:.4f}")
    if math.isfinite(theirs.reached(known)):
        return known
    print(f"it did not reach {known}: all its steps count")
    return final


def report(name: str, theirs: LossCurve, ours: list[LossCurve], target: float) -> None:
    """Print seconds and ratios."""
    missed = sum(not math.isfinite(curve.reached(target)) for curve in ours)
    losses = sorted(curve.losses[-1][1] for curve in ours)
    seconds = [curve.reached(target) for curve in ours]
    median = statistics.median(seconds)
    ratios = sorted(theirs.reached(target) / second for second in seconds)
    print(
        f"atlas {name}: {median:.2f} s, val losses {losses[0]:.4f} to {losses[-1]:.4f}, {missed} "
        f"of {len(ours)} above {target:.4f}: {theirs.reached(target) / median:.1f} times as fast "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f})"
    )


if __name__ == "__main__":
    main()
