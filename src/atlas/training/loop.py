"""The training loop.

Each step: a batch, its gradient (in parts if asked), a clipped AdamW update. Every so often
the val loss is measured, and the best weights are kept. The loop can be stopped at any moment
and goes on exactly where it was.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from atlas.errors import AtlasError, Stopped
from atlas.model.language_model import LanguageModel
from atlas.params import TrainParams
from atlas.tokens.batches import Batches, TensorBatch, readers
from atlas.tokens.windows import EvaluationWindows, TrainingWindows
from atlas.training.checkpoint import Checkpoints, Progress
from atlas.training.optimizer import make_optimizer
from atlas.training.schedule import warmup_cosine
from atlas.training.stopping import StopRequest
from atlas.training.validation import cross_entropy_sum, mean_loss


def seconds_between_checkpoints() -> float:
    """``ATLAS_CHECKPOINT_SECONDS``, or 60.

    Raises:
        AtlasError: it is no number.
    """
    value = os.environ.get("ATLAS_CHECKPOINT_SECONDS", "60")
    try:
        return float(value)
    except ValueError:
        raise AtlasError(f"ATLAS_CHECKPOINT_SECONDS={value}: give a number of seconds") from None


@dataclass
class Training:
    """One run of training.

    Attributes:
        model: on its device, with its first weights.
        data: the windows to learn from.
        val: the windows that pick the best weights.
        train: the params.
        checkpoints: where the run is kept safe.
    """

    model: LanguageModel
    data: TrainingWindows
    val: EvaluationWindows
    train: TrainParams
    checkpoints: Checkpoints

    def run(self) -> Progress:
        """Trains to the last step, from the newest checkpoint on.

        Returns:
            What was logged. The best weights are in ``checkpoints.best``, the last ones in
            ``model``.

        Raises:
            Stopped: SIGINT or SIGTERM came; a checkpoint of this moment was written.
            AtlasError: the loss or the gradient was not finite; nothing was updated with it.
        """
        every = seconds_between_checkpoints()
        device = self.model.device
        batches = Batches(self.data, device, readers(device))
        optimizer = make_optimizer(self.model, self.train)
        torch.manual_seed(self.train.seed)  # dropout
        progress = self.checkpoints.resume(self.model, optimizer)
        if progress.batches:
            batches.load_state_dict(progress.batches)
        if not progress.val_rows:
            self._validate(progress)
        speed = Speed()
        saved = time.monotonic()
        with StopRequest() as stop, self._bar(progress) as bar, closing(batches.read()) as reader:
            while progress.step < self.train.steps:
                with speed.steps_of(progress):
                    self._step(next(reader), optimizer, progress)
                if self._due(self.train.log_every, progress):
                    self._log(optimizer, progress, speed.read(), bar)
                bar.update()
                if self._due(self.train.eval_every, progress):
                    self._validate(progress)
                if stop.requested or time.monotonic() - saved >= every:
                    progress.batches = batches.state_dict()
                    self.checkpoints.save(self.model, optimizer, progress)
                    saved = time.monotonic()
                if stop.requested:
                    raise Stopped(
                        f"stopped after step {progress.step} of {self.train.steps}; "
                        "`dvc repro`, or the same `dvc exp run`, goes on from there"
                    )
        return progress

    def _step(
        self, batch: TensorBatch, optimizer: torch.optim.Optimizer, progress: Progress
    ) -> None:
        factor = warmup_cosine(
            progress.step, self.train.steps, self.train.warmup_steps, self.train.final_lr
        )
        for group in optimizer.param_groups:
            group["lr"] = self.train.lr * factor
        loss = self._backward(batch)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise AtlasError(self._diagnosis(progress.step, loss, norm))
        nn.utils.clip_grads_with_norm_(self.model.parameters(), self.train.clip_norm, norm)
        optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        progress.tokens += int(batch.mask.sum())
        progress.unlogged.append((loss.item(), norm.item()))

    def _backward(self, batch: TensorBatch) -> Tensor:
        """Adds up the gradient of a batch; returns its loss, nats a token.

        Each part is divided by the tokens of the whole batch, so the parts add up to it. What
        fills up a window stands on its right, where causal attention never sees it.
        """
        total = torch.zeros((), device=batch.inputs.device)
        tokens = batch.predicted()
        parts = self.train.accumulation
        for x, y in zip(batch.inputs.chunk(parts), batch.targets.chunk(parts), strict=True):
            loss = cross_entropy_sum(self.model(x), y) / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _validate(self, progress: Progress) -> None:
        loss = mean_loss(self.model, self.val.spread(self.train.eval_windows))
        if not math.isfinite(loss):
            raise AtlasError(
                f"training stopped after step {progress.step}: the val loss is {loss:g}. "
                "Lower train.lr, or lengthen train.warmup_steps"
            )
        progress.val_rows.append({"step": progress.step, "loss": loss})
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step = loss, progress.step
            self.checkpoints.save_best(self.model)

    def _log(
        self,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        speed: float,
        bar: "tqdm[NoReturn]",
    ) -> None:
        losses, norms = zip(*progress.unlogged, strict=True)
        loss, norm = fmean(losses), fmean(norms)
        lr = optimizer.param_groups[0]["lr"]
        progress.unlogged.clear()
        progress.train_rows.append(
            {"step": progress.step, "loss": loss, "lr": lr, "gradient_norm": norm}
        )
        progress.speed_rows.append({"step": progress.step, "tokens_per_second": round(speed)})
        val = progress.val_rows[-1]["loss"]
        bar.set_postfix_str(
            f"loss {loss:.3f}, val {val:.3f}, lr {lr:.1e}, |g| {norm:.2f}, {speed:,.0f} tok/s"
        )

    def _due(self, every: int, progress: Progress) -> bool:
        return progress.step % every == 0 or progress.step == self.train.steps

    def _bar(self, progress: Progress) -> "tqdm[NoReturn]":
        if progress.step:
            tqdm.write(f"going on from step {progress.step}")
        return tqdm(desc="train", total=self.train.steps, initial=progress.step, unit="step")

    def _diagnosis(self, step: int, loss: Tensor, norm: Tensor) -> str:
        places = self.data.places(step)
        norms = {
            name: parameter.grad.norm().item()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        # A NaN compares with nothing, so it is put first by hand.
        worst = sorted(norms, key=lambda name: (norms[name] == norms[name], -norms[name]))[:3]
        return (
            f"training stopped before the update of step {step + 1}: the loss is "
            f"{loss.item():g}, the norm of the gradient {norm.item():g} (windows "
            f"{', '.join(str(number) for number, _ in places[:4])}, ...; largest gradients: "
            f"{', '.join(f'{name} {norms[name]:g}' for name in worst)}). Lower train.lr or "
            "train.clip_norm, or lengthen train.warmup_steps"
        )


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
        speed = self._tokens / self._seconds
        self._tokens, self._seconds = 0, 0.0
        return speed
