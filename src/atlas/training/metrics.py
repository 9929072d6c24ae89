"""What a training shows and logs: a progress bar, rows for CSV files, TensorBoard events.

How far a training is, and what it has logged.

How fast a training is, and how much of the machine it uses.

TensorBoard events of a run.

    tensorboard --logdir metrics/tensorboard

They are there to be looked at: where the disk does not take them, training goes on without.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from atlas.errors import one_line
from atlas.model.loss import perplexity
from atlas.pipeline.files import remove
from atlas.training.train_step import Step

Row = dict[str, int | float]
LEARNED, GENERALISED = 0.99, 0.95  # shares of right answers, of train and of val


@dataclass
class Progress:
    """How far training is, and what it has logged: the same in every process of a run.

    Attributes:
        step: steps done.
        tokens: that the steps have read.
        skipped: steps of float16 whose gradient overflowed, so that they changed nothing.
        best_step: the step after which the val loss was lowest.
        best_loss: that val loss, nats a token.
        worse: validations since then.
        average: moving average of the loss.
        train_rows: rows of metrics/train.csv.
        val_rows: rows of metrics/val.csv.
        layer_rows: rows of metrics/layers.csv.
        speed_rows: rows of metrics/timing/train.csv.
        samples: step and text of each sample.
        unlogged: loss and norm of the gradient of each step since the last row.
        batches: where the reading of the data is.
    """

    step: int = 0
    tokens: int = 0
    skipped: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    worse: int = 0
    average: float = 0.0
    train_rows: list[Row] = field(default_factory=list)
    val_rows: list[Row] = field(default_factory=list)
    layer_rows: list[dict[str, Any]] = field(default_factory=list)
    speed_rows: list[Row] = field(default_factory=list)
    samples: list[tuple[int, str]] = field(default_factory=list)
    unlogged: list[tuple[float, float]] = field(default_factory=list)
    batches: dict[str, Any] = field(default_factory=dict)

    def metrics(self) -> dict[str, int | float | str]:
        """What became of the training.

        ``learned_step`` and ``generalised_step`` are the first validations at which nearly all
        answers of train, and of val, were right; where they lie far apart, a model has grokked
        (arXiv:2201.02177).
        """
        last = self.val_rows[-1]
        found: dict[str, int | float | str] = {
            "best_val_loss": self.best_loss,
            "best_step": self.best_step,
            "last_train_loss": self.train_rows[-1]["loss"],
            "last_val_loss": last["loss"],
            "last_val_accuracy": last["accuracy"],
            "last_weight_norm": last["weight_norm"],
            "steps": self.step,
            "skipped_steps": self.skipped,
            "tokens_seen": self.tokens,
        }
        for name, column, least in (
            ("learned_step", "train_accuracy", LEARNED),
            ("generalised_step", "accuracy", GENERALISED),
        ):
            step = self.first_step(column, least)
            if step is not None:
                found[name] = step
        return found

    def first_step(self, column: str, least: float) -> int | None:
        """The first validation at which a column of metrics/val.csv was so large; None if never."""
        found = (row["step"] for row in self.val_rows if row.get(column, -math.inf) >= least)
        return next((int(step) for step in found), None)


# Large enough to reach a device's rate, small enough to take milliseconds.
SIZES = {"cpu": 1536, "cuda": 8192}
TRIES = 5


def matmul_flops(device: torch.device, kind: torch.dtype = torch.float32) -> float:
    """Floating point operations a second of a device's own matrix product, the best of a few."""
    size = SIZES.get(device.type, SIZES["cpu"])
    a = torch.ones(size, size, device=device, dtype=kind)
    best = float("inf")
    for _ in range(TRIES):
        started = time.perf_counter()
        (a @ a)[0, 0].item()  # which waits for a GPU
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


class Speed:
    """Tokens a second of the steps since it was last read, validation and writing left out."""

    def __init__(self) -> None:
        self._tokens, self._seconds = 0, 0.0

    @contextmanager
    def steps_of(self, progress: Progress) -> Iterator[None]:
        """Times what is done within, and counts the tokens by which training gets on."""
        started, before = time.perf_counter(), progress.tokens
        yield
        self._tokens += progress.tokens - before
        self._seconds += time.perf_counter() - started

    def read(self) -> float:
        """Tokens a second; starts anew."""
        speed = self._tokens / self._seconds if self._seconds else 0.0  # no step was made
        self._tokens, self._seconds = 0, 0.0
        return speed


class Events:
    """The events of one run, from a step on; of a run that begins, those of before are removed."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None
        self._try(lambda: self._open(step))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Adds a number."""
        if (writer := self._writer) is not None:
            self._try(lambda: writer.add_scalar(name, value, step))

    def text(self, name: str, text: str, step: int) -> None:
        """Adds a text, shown as it is."""
        if (writer := self._writer) is not None:
            self._try(lambda: writer.add_text(name, f"    {text}", step))

    def close(self) -> None:
        """Writes what is left."""
        if (writer := self._writer) is not None:
            self._try(writer.close)

    def _open(self, step: int) -> None:
        if not step:
            remove(self._folder)
        self._writer = SummaryWriter(str(self._folder), purge_step=step + 1)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # what its thread met comes out here, of any kind
            self._writer = None
            print(
                f"note: {self._folder}: no more events for TensorBoard ({one_line(error)}); "
                "training goes on",
                file=sys.stderr,
            )


MEMORY = 0.98  # of the moving average: about the last fifty steps


class Journal:
    """The journal of one run, kept by the first of its processes.

    Attributes:
        speed: of the steps since the last row.
    """

    def __init__(
        self, progress: Progress, steps: int, utilisation_of_one: float, folder: Path | None
    ) -> None:
        """Goes on after the steps of ``progress``.

        Args:
            progress: where rows are kept.
            steps: how many there will be.
            utilisation_of_one: the share of the machine that a token a second takes.
            folder: of the event files; None for a process that is not the first.
        """
        self.speed = Speed()
        self._utilisation_of_one = utilisation_of_one
        self._progress = progress
        self._events = Events(folder, progress.step) if folder is not None else None
        if folder is not None and progress.step:
            tqdm.write(f"going on from step {progress.step}", file=sys.stderr)
        self._bar: tqdm[NoReturn] = tqdm(
            desc="train", total=steps, initial=progress.step, unit="step", disable=folder is None
        )

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        if self._events is not None:
            self._events.close()

    def step(self, made: Step) -> None:
        """Notes a step; one that updated nothing counts, and has no loss worth a mean."""
        progress = self._progress
        progress.step += 1
        progress.tokens += made.tokens
        if made.updated:
            updates = progress.step - progress.skipped
            kept = min(MEMORY, 1 - 1 / updates)  # the plain mean of the first fifty
            progress.average = kept * progress.average + (1 - kept) * made.loss
            progress.unlogged.append((made.loss, made.norm))
        else:
            progress.skipped += 1
        self._bar.update()

    def row(self, lr: float, epoch: float) -> Row:
        """Adds a row over the steps since the last one; shows it."""
        progress, step = self._progress, self._progress.step
        losses, norms = zip(*progress.unlogged, strict=True)
        progress.unlogged.clear()
        loss = fmean(losses)
        row: Row = {
            "step": step,
            "epoch": round(epoch, 4),
            "tokens": progress.tokens,
            "loss": loss,
            "loss_average": progress.average,
            "perplexity": perplexity(loss),
            "lr": lr,
            "gradient_norm": fmean(norms),
        }
        progress.train_rows.append(row)
        speed = self.speed.read()
        used = speed * self._utilisation_of_one
        speeds: Row = {
            "step": step,
            "tokens_per_second": round(speed),
            "flop_utilisation": round(used, 3),
        }
        progress.speed_rows.append(speeds)
        self._write("train", row)
        self._write("speed", speeds)
        self._bar.set_postfix_str(
            f"loss {loss:.3f} (average {row['loss_average']:.3f}), ppl {row['perplexity']:.4g}, "
            f"val {progress.val_rows[-1]['loss']:.3f}, lr {lr:.1e}, "
            f"|g| {row['gradient_norm']:.2f}, {speed:,.0f} tok/s, {used:.0%} of the machine"
        )
        return row

    def validation(self, row: Row) -> None:
        """Adds what was measured."""
        self._progress.val_rows.append(row)
        self._write("val", row)

    def sample(self, text: str) -> None:
        """Adds a sample."""
        self._progress.samples.append((self._progress.step, text))
        if self._events is not None:
            self._events.text("sample", text, self._progress.step)

    def _write(self, group: str, row: Row) -> None:
        if self._events is not None:
            for key, value in row.items():
                if key != "step":
                    self._events.scalar(f"{group}/{key}", value, int(row["step"]))
