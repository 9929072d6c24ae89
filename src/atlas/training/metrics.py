"""Training metrics: CSV rows, samples, progress bar, TensorBoard events, live files for DVC.

    tensorboard --logdir metrics/tensorboard
    dvc plots show                              # while training runs: metrics/live/

Events and live files are for watching: if the disk is full, training continues without them.
"""

import logging
import math
import time
import timeit
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from textwrap import indent
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from atlas.errors import AtlasError, one_line
from atlas.model.language_model import LanguageModel
from atlas.model.logits import draw, keep_top_k, keep_top_p
from atlas.model.loss import Tally, perplexity
from atlas.pipeline.files import remove, write_csv, write_json
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import document_prompts
from atlas.training.train_step import LAYER_COLUMNS, StepResult, total_norm

Row = dict[str, int | float]
LEARNED, GENERALIZED = 0.99, 0.95  # accuracy on train, on val
LOSS_DECAY = 0.98  # of the moving average: about the last fifty steps
# Markdown's characters that could begin a tag, a picture or code, or end a cell.
ESCAPED = str.maketrans({"<": "&lt;", "&": "&amp;"} | {each: f"\\{each}" for each in "\\|[`"})
LIVE_SECONDS = 1.0  # between writes of metrics/live
TEMPERATURE, TOP_K, TOP_P, SEED = 0.8, 50, 0.95, 1  # of the samples

logger = logging.getLogger(__name__)


@dataclass
class TrainState:
    """Progress of training and everything logged so far; the same in every process."""

    step: int = 0  # steps done
    tokens: int = 0
    skipped_steps: int = 0  # float16 steps that overflowed and changed nothing
    best_step: int = 0  # the step after which the val loss was lowest
    best_loss: float = math.inf  # that val loss, nats per token
    evals_since_best: int = 0
    loss_average: float = 0.0  # moving average
    train_rows: list[Row] = field(default_factory=list)  # metrics/train.csv
    val_rows: list[Row] = field(default_factory=list)  # metrics/val.csv
    layer_rows: list[dict[str, Any]] = field(default_factory=list)  # metrics/layers.csv
    speed_rows: list[Row] = field(default_factory=list)  # metrics/timing/train.csv
    samples: list[tuple[int, str]] = field(default_factory=list)  # step and text
    unlogged: list[tuple[float, float]] = field(default_factory=list)  # loss and gradient norm
    data_position: dict[str, Any] = field(default_factory=dict)  # of ``BatchLoader``

    def final_metrics(self) -> dict[str, int | float | str]:
        """The contents of metrics/train.json.

        ``learned_step`` and ``generalised_step`` are the first validations with nearly all answers
        right on train and on val. A large gap between them is grokking (arXiv:2201.02177).
        """
        last = self.val_rows[-1]
        metrics: dict[str, int | float | str] = {
            "best_val_loss": self.best_loss,
            "best_step": self.best_step,
            "last_train_loss": self.train_rows[-1]["loss"],
            "last_val_loss": last["loss"],
            "last_val_accuracy": last["accuracy"],
            "last_weight_norm": last["weight_norm"],
            "steps": self.step,
            "skipped_steps": self.skipped_steps,
            "tokens_seen": self.tokens,
        }
        milestones = {
            "learned_step": self.first_step_above("train_accuracy", LEARNED),
            "generalised_step": self.first_step_above("accuracy", GENERALIZED),
        }
        return metrics | {name: step for name, step in milestones.items() if step is not None}

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables metrics/train.csv, val.csv and layers.csv by name."""
        return {
            "train": pd.DataFrame(self.train_rows),
            "val": pd.DataFrame(self.val_table()),
            "layers": pd.DataFrame(self.layer_rows, columns=list(LAYER_COLUMNS)),
        }

    def val_table(self) -> list[Row]:
        """Return the rows of metrics/val.csv.

        Without a loss on train windows, its columns are NaN: DVC warns about a missing column, and
        draws an empty cell as 0.
        """
        return [
            row | {name: row.get(name, math.nan) for name in ("train_loss", "train_accuracy")}
            for row in self.val_rows
        ]

    def median_speed(self) -> dict[str, float]:
        """Return the median of each column of metrics/timing/train.csv."""
        medians = pd.DataFrame(self.speed_rows).drop(columns="step").median()
        return {str(key): float(value) for key, value in medians.items()}

    def first_step_above(self, column: str, threshold: float) -> int | None:
        """The first validation at which a column of metrics/val.csv reached a threshold."""
        steps = (row["step"] for row in self.val_rows if row.get(column, -math.inf) >= threshold)
        return next((int(step) for step in steps), None)


def val_row(step: int, val: Tally, train: Tally | None, model: LanguageModel) -> Row:
    """Make a row of metrics/val.csv; every process must call this."""
    loss, accuracy = val.mean, val.accuracy
    row: Row = {"step": step, "loss": loss, "perplexity": perplexity(loss), "accuracy": accuracy}
    if train is not None:
        row |= {"train_loss": train.mean, "train_accuracy": train.accuracy}
    return row | {"weight_norm": total_norm(model.parameters()).item()}


@torch.no_grad()
def sample_text(
    model: LanguageModel, tokenizer: Tokenizer, val: TokenSplit, max_tokens: int
) -> str:
    """Return the beginning of the first val document and its continuation.

    A plain loop without a KV cache: each token rereads the text. When the context is full, the
    model forgets the older half of it, as in ``atlas.inference``; an encoder-decoder stops there,
    because it would lose its question. Every sample uses the same random numbers, from a generator
    that training does not use.
    """
    config, generator = model.config, np.random.default_rng(SEED)
    prompt = (document_prompts(val, 1) or [[]])[0]
    ids = config.with_bos(prompt)
    start = len(ids)
    visible = min(start, config.context_length)
    with model.evaluating():
        while len(ids) < start + max_tokens:
            inputs = torch.tensor([ids[-visible:]], device=model.device)  # (1, T)
            logits = model(inputs)[0, -1].float().cpu().numpy()  # (V,)
            if not np.isfinite(logits).all():
                raise AtlasError("the model's logits are NaN or infinite; train it again")
            logits = (logits - logits.max()) / np.float32(TEMPERATURE)
            token = draw(keep_top_p(keep_top_k(logits, TOP_K), TOP_P), generator)
            if token in config.end_ids:
                break
            ids.append(token)
            if visible < config.context_length:
                visible += 1
            elif config.kind == "encoder_decoder":
                break
            else:
                visible = max(1, config.context_length // 2)
    return tokenizer.decode([*prompt, *ids[start:]])


def samples_page(samples: Iterable[tuple[int, str]]) -> str:
    """Format ``(step, text)`` pairs as a Markdown table; nothing in a text is markup."""
    lines = [f"| {step} | {one_line(text).translate(ESCAPED)} |" for step, text in samples]
    return "\n".join(["| step | sample |", "| --- | --- |", *lines]) + "\n"


# Large enough to reach a device's full speed, small enough to take milliseconds.
MATMUL_SIZES = {"cpu": 1536, "cuda": 8192}


def matmul_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Measure the floating point operations per second of a large matrix product: best of five."""
    size = MATMUL_SIZES.get(device.type, MATMUL_SIZES["cpu"])
    a = torch.ones(size, size, device=device, dtype=dtype)
    tries = timeit.repeat(lambda: (a @ a)[0, 0].item(), number=1, repeat=5)  # item waits for a GPU
    return 2 * size**3 / min(tries)


class BestEffort:
    """Writes to a folder, if there is one, until a write fails; failures don't stop training."""

    def __init__(self, contents: str, folder: Path | None) -> None:
        self._contents, self._folder = contents, folder

    def __call__(self, write: Callable[[Path], object]) -> None:
        """Call ``write`` with the folder; after its first error, warn and never write again."""
        if self._folder is not None:
            try:
                write(self._folder)
            except Exception as error:  # SummaryWriter raises any error of its thread
                where, reason = f"{self._folder}: {self._contents}", one_line(error)
                logger.warning("%s stop here (%s); training continues", where, reason)
                self._folder = None


def write_live_files(state: TrainState, folder: Path) -> None:
    """Write train.csv, val.csv and the latest values in train.json while training runs.

    DVC shows them in ``dvc exp show``, ``dvc plots show`` and the VS Code extension. They are not
    outputs of the stage: DVC would delete outputs when the stage starts.
    """
    latest: Row = {"step": state.step, "tokens": state.tokens}
    if state.train_rows:
        write_csv(folder / "train.csv", state.train_rows)
        row = state.train_rows[-1]
        latest |= {"loss": row["loss"], "loss_average": row["loss_average"], "lr": row["lr"]}
    if state.speed_rows:
        latest["tokens_per_second"] = state.speed_rows[-1]["tokens_per_second"]
    if state.val_rows:
        write_csv(folder / "val.csv", state.val_table())
        row = state.val_rows[-1]
        latest |= {"val_loss": row["loss"], "val_accuracy": row["accuracy"]}
        latest |= {"best_val_loss": state.best_loss, "best_step": state.best_step}
    write_json(folder / "train.json", latest)


class MetricsLogger:
    """Adds rows to a ``TrainState``; the main process also writes and displays them."""

    def __init__(
        self,
        state: TrainState,
        steps: int,
        utilization_per_token: float,
        events: Path | None = None,
        live: Path | None = None,
        *,
        is_main: bool = True,
    ) -> None:
        """Continue after the steps of ``state``, up to ``steps``.

        ``utilization_per_token`` is the share of the machine used at one token per second. Only
        the main process writes to the folders of events and live files.
        """
        self._state = state
        self._utilization_per_token = utilization_per_token
        self._tokens, self._seconds = 0, 0.0  # of the steps since the last row of train.csv
        self._events = BestEffort("TensorBoard events", events if is_main else None)
        self._events(self._open_writer)
        self._live = BestEffort("live metrics", live if is_main else None)
        self._live_written = -math.inf
        if is_main and state.step:
            logger.info("continuing from step %d", state.step)
        self._bar: tqdm[NoReturn] = tqdm(
            desc="train", total=steps, initial=state.step, unit="step", disable=not is_main
        )

    def close(self) -> None:
        """Finish the bar and the files."""
        self._bar.close()
        self._events(lambda _: self._writer.close())
        self._write_live(force=True)

    @contextmanager
    def measure_speed(self) -> Iterator[None]:
        """Time a step, without validation and logging, and count its tokens."""
        started, before = time.perf_counter(), self._state.tokens
        yield
        self._tokens += self._state.tokens - before
        self._seconds += time.perf_counter() - started

    def log_step(self, result: StepResult) -> None:
        """Count a step; a skipped one has no loss to average."""
        state = self._state
        state.step += 1
        state.tokens += result.tokens
        if result.updated:
            updates = state.step - state.skipped_steps
            decay = min(LOSS_DECAY, 1 - 1 / updates)  # the plain mean for the first fifty
            state.loss_average = decay * state.loss_average + (1 - decay) * result.loss
            state.unlogged.append((result.loss, result.grad_norm))
        else:
            state.skipped_steps += 1
        self._bar.update()

    def log_train(self, lr: float, epoch: float) -> None:
        """Add a row of metrics/train.csv, averaged over the steps since the last one."""
        state = self._state
        losses, norms = zip(*state.unlogged, strict=True)
        state.unlogged.clear()
        loss = fmean(losses)
        row: Row = {
            "step": state.step,
            "epoch": round(epoch, 4),
            "tokens": state.tokens,
            "loss": loss,
            "loss_average": state.loss_average,
            "perplexity": perplexity(loss),
            "lr": lr,
            "gradient_norm": fmean(norms),
        }
        state.train_rows.append(row)
        speed = self._tokens / self._seconds if self._seconds else 0.0
        self._tokens, self._seconds = 0, 0.0
        utilization = speed * self._utilization_per_token
        speed_row: Row = {"step": state.step, "tokens_per_second": round(speed)}
        speed_row["flop_utilisation"] = round(utilization, 3)
        state.speed_rows.append(speed_row)
        self._write_events("train", row)
        self._write_events("speed", speed_row)
        self._write_live()
        self._bar.set_postfix_str(
            f"loss {loss:.3f} (average {row['loss_average']:.3f}), ppl {row['perplexity']:.4g}, "
            f"val {state.val_rows[-1]['loss']:.3f}, lr {lr:.1e}, "
            f"|g| {row['gradient_norm']:.2f}, {speed:,.0f} tok/s, {utilization:.0%} of the machine"
        )

    def log_val(self, row: Row) -> None:
        """Add a row of metrics/val.csv."""
        self._state.val_rows.append(row)
        self._write_events("val", row)
        self._write_live(force=True)

    def log_sample(self, text: str) -> None:
        """Add a sample of generated text."""
        step = self._state.step
        self._state.samples.append((step, text))
        code = indent(text, "    ", lambda _: True)  # TensorBoard reads Markdown
        self._events(lambda _: self._writer.add_text("sample", code, step))

    def _open_writer(self, folder: Path) -> None:
        step = self._state.step
        if not step:  # a new run
            remove(folder)
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def _write_events(self, group: str, row: Row) -> None:
        def write(_folder: Path) -> None:
            for key, value in row.items():
                if key != "step":
                    self._writer.add_scalar(f"{group}/{key}", value, int(row["step"]))

        self._events(write)

    def _write_live(self, *, force: bool = False) -> None:
        """Replace the live files, at most once per second unless forced."""
        now = time.monotonic()
        if force or now - self._live_written >= LIVE_SECONDS:
            self._live_written = now
            self._live(partial(write_live_files, self._state))
