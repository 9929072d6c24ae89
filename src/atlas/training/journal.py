"""What a training shows and logs: a progress bar, rows for CSV files, TensorBoard events."""

import sys
from pathlib import Path
from statistics import fmean
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from atlas.training.events import Events
from atlas.training.safety.progress import Progress, Row
from atlas.training.steps.learner import Step
from atlas.training.steps.loss import perplexity
from atlas.training.utilisation import Speed

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
