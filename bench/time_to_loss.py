"""Seconds of training to a val loss: Atlas's preset beside nanoGPT's published recipe.

    pip install -e '.[bench]'
    ATLAS_MIRROR=... python -m bench.time_to_loss     # the mirror only where there is no network
    python -m bench.time_to_loss --device cuda

Both learn tiny Shakespeare by characters, on the same device and threads. The recipe is that of
nanoGPT's README: GPT-2 (that of transformers) of 4 layers, 128 wide, T 64, B 12, 2,000 steps of
AdamW on a CPU; 6 layers, 384 wide, T 256, B 64, 5,000 steps on a GPU. Ours is the preset
`speedrun-cpu` or `speedrun-gpu`, through the pipeline's own functions. In turn: a slice of
the recipe's steps, a whole run of ours with another seed, eager and then compiled, the next slice.
(By itself the pipeline would not compile a run of seconds.)

What counts is the time of steps, reading of batches included. The first steps, in which
torch.compile works, are made before with weights that are thrown away, and shown apart. Val loss,
in nats a character over the whole val split (the last tenth of the text), is measured between the
steps and not counted.
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
from bench.nanogpt import RECIPES, VAL_BATCH, Course, NanoGpt
from bench.shared import ROOT


class Atlas:
    """Our preset, through the pipeline's own functions."""

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
        """The clean text of a split."""
        return "".join(document.text for document in read_documents(self.folder / "clean" / split))

    def run(self, seed: int, *, compiled: bool, most: int | None = None) -> tuple[Course, float]:
        """A training from its first weights; and its val loss at the end."""
        params = self.params.model_copy(
            update={"train": self.params.train.model_copy(update={"seed": seed})}
        )
        train, length = params.train, params.model.context_length
        data = TrainingWindows(
            TokenSplit(self.folder / "tokens", "train"), length, train.batch_size, seed
        )
        steps = total_steps(train, data.per_epoch)
        context = DistributedContext(self.device)
        model = build_model(params, self.index, context)
        train_step = TrainStep(model, train, steps, context, compiled=compiled)
        course = Course()
        reader = BatchLoader(data, self.device, reader_count(self.device)).read()
        started = time.perf_counter()
        for step in range(most or steps):
            train_step.update(next(reader), step)
        wait(self.device)
        course.seconds = time.perf_counter() - started
        reader.close()
        val = EvaluationWindows(self.val, length, VAL_BATCH)
        with torch.compiler.set_stance("force_eager"), train_step.precision.autocast():
            loss = mean_loss(model, val.all())
        course.losses.append((course.seconds, loss))
        return course, loss


def main() -> None:
    """Lets both take turns and prints what it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=int, default=5, help="of ours, with another seed each")
    parser.add_argument("--steps", type=int, help="of the recipe, to try the benchmark out")
    options = parser.parse_args()
    device = torch.device(options.device)
    recipe = RECIPES[device.type]
    steps = options.steps or recipe.steps
    print(f"{device}, {torch.get_num_threads()} threads, to a val loss of {recipe.target}")
    with tempfile.TemporaryDirectory() as folder:
        atlas = Atlas(with_presets(ROOT, [recipe.preset]), Path(folder), device)
        train, val = atlas.text("train"), atlas.text("val")
        print(f"{len(train):,} characters to learn from, {len(val):,} of val")
        started = time.perf_counter()
        atlas.run(seed=0, compiled=True, most=3)
        compilation = time.perf_counter() - started
        theirs = NanoGpt(recipe, train, val, device)
        ours: dict[str, list[Course]] = {"eager": [], "compiled": []}
        for number, (first, last) in enumerate(slices(steps, options.runs), start=1):
            advance(theirs, first, last, steps)
            for name, found in ours.items():
                course, loss = atlas.run(seed=number, compiled=name == "compiled")
                found.append(course)
                print(f"atlas {name}, seed {number}: {course.seconds:.2f} s, val loss {loss:.4f}")
    target = reference(theirs.course, recipe.target)
    for name, found in ours.items():
        report(name, theirs.course, found, target)
    print(f"compilation, apart: {compilation:.0f} s (less where its result was kept)")


def slices(steps: int, count: int) -> Iterator[tuple[int, int]]:
    """Cuts steps into even slices."""
    ends = [steps * number // count for number in range(count + 1)]
    yield from itertools.pairwise(ends)


def advance(recipe: NanoGpt, first: int, last: int, steps: int) -> None:
    """Makes a slice of the recipe's steps; near the end its val loss is looked at often."""
    often = max(1, steps // 80)
    for begin in range(first, last, often):
        end = min(begin + often, last)
        recipe.steps(begin, end)
        if end >= 0.8 * steps:
            loss = recipe.validate()
            print(
                f"recipe, step {end}: {recipe.course.seconds:.1f} s, val loss {loss:.4f}",
                flush=True,
            )


def reference(theirs: Course, known: float) -> float:
    """The loss to reach: that which the recipe is known for, or else its last, if that is above."""
    final = theirs.losses[-1][1]
    print(f"recipe: {theirs.seconds:.1f} s of steps, final val loss {final:.4f}")
    if math.isfinite(theirs.reached(known)):
        return known
    print(f"it does not get to {known}: all of its steps count")
    return final


def report(name: str, theirs: Course, ours: list[Course], target: float) -> None:
    """Prints seconds and ratios."""
    missed = sum(not math.isfinite(course.reached(target)) for course in ours)
    losses = sorted(course.losses[-1][1] for course in ours)
    seconds = [course.reached(target) for course in ours]
    median = statistics.median(seconds)
    ratios = sorted(theirs.reached(target) / second for second in seconds)
    print(
        f"atlas {name}: {median:.2f} s, val losses {losses[0]:.4f} to {losses[-1]:.4f}, {missed} "
        f"of {len(ours)} above {target:.4f}: {theirs.reached(target) / median:.1f} times as fast "
        f"({ratios[0]:.1f} to {ratios[-1]:.1f})"
    )


if __name__ == "__main__":
    main()
