"""The training loop.

Each step: a batch, its gradient, an update. Every so often the val loss is measured, a sample is
drawn, and the best weights are kept. The loop can be stopped at any moment and goes on exactly
where it was.
"""

import math
import os
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from atlas.errors import AtlasError, Stopped
from atlas.model.counts import count
from atlas.tokens.batches import Batches, TensorBatch, readers
from atlas.tokens.windows import EvaluationWindows, TrainingWindows
from atlas.training.journal import Journal
from atlas.training.safety.checkpoint import Checkpoints
from atlas.training.safety.diagnosis import ADVICE, divergence, not_finite
from atlas.training.safety.progress import Progress
from atlas.training.safety.snapshot import whole_weights
from atlas.training.safety.stopping import StopRequest
from atlas.training.steps.learner import Learner
from atlas.training.steps.loss import total_loss
from atlas.training.utilisation import matmul_flops


def seconds_between_checkpoints() -> float:
    """``ATLAS_CHECKPOINT_SECONDS``, or 60.

    Raises:
        AtlasError: it is no such number.
    """
    value = os.environ.get("ATLAS_CHECKPOINT_SECONDS", "60")
    with suppress(ValueError):
        if 0 <= (seconds := float(value)) < math.inf:
            return seconds
    raise AtlasError(f"ATLAS_CHECKPOINT_SECONDS={value}: give a number of seconds, 0 or more")


@dataclass
class Training:
    """One run of training, in every process that takes part.

    Attributes:
        learner: the model, and what updates it.
        data: the windows to learn from.
        val: the windows that pick the best weights.
        checkpoints: where the run is kept safe.
        events: folder of the TensorBoard events; None for none.
        sample: writes a text with the model of now; None for no samples.
    """

    learner: Learner
    data: TrainingWindows
    val: EvaluationWindows
    checkpoints: Checkpoints
    events: Path | None = None
    sample: Callable[[], str] | None = None

    def run(self) -> Progress:
        """Trains to the last step, from the newest checkpoint on.

        Returns:
            What was logged. The best weights are in ``checkpoints.best``, the last ones in the
            model.

        Raises:
            Stopped: SIGINT or SIGTERM came; a checkpoint of this moment was written.
            AtlasError: the loss or the gradient was not finite (nothing was updated with it), or
                far above the loss of guessing.
        """
        every = seconds_between_checkpoints()
        learner, world = self.learner, self.learner.world
        share = world.share(learner.train.batch_size)
        batches = Batches(self.data, world.device, readers(world.device), share)
        progress = self.checkpoints.resume(learner)
        if progress.batches:
            batches.load_state_dict(progress.batches)
        with (
            StopRequest() as stop,
            self._journal(progress) as journal,
            closing(batches.read()) as reader,
        ):
            if not progress.val_rows:
                self._validate(progress, journal)
            saved = time.monotonic()
            while not self._ended(progress):
                with journal.speed.steps_of(progress):
                    self._step(next(reader), progress, journal)
                if self._due(learner.train.log_every, progress) and progress.unlogged:
                    self._log(progress, journal)
                if self._due(learner.train.eval_every, progress):
                    self._validate(progress, journal)
                late = world.is_first and time.monotonic() - saved >= every
                stopped, due = world.sums(stop.requested, late)  # all do the same
                if stopped or due:
                    progress.batches = batches.state_dict()
                    written = self.checkpoints.save(learner, progress)
                    saved = time.monotonic()
                if stopped:
                    raise Stopped(self._stopped(progress, written))
            if progress.unlogged:  # training has ended early
                self._log(progress, journal)
        if world.is_first:
            self.checkpoints.settle()
        return progress

    def _step(self, batch: TensorBatch, progress: Progress, journal: Journal) -> None:
        made = self.learner.learn(batch, progress.step)
        if not made.usable:
            raise AtlasError(not_finite(progress.step, made, self.learner.model, self.data))
        journal.step(made)

    def _log(self, progress: Progress, journal: Journal) -> None:
        epoch = progress.step * self.data.batch_size / self.data.per_epoch
        journal.row(self.learner.optimizers.lr, epoch)
        if problem := divergence(progress, self.learner.model.config.vocab_size):
            raise AtlasError(problem)

    def _validate(self, progress: Progress, journal: Journal) -> None:
        learner, world = self.learner, self.learner.world
        windows = self.val.spread(learner.train.eval_windows)
        with torch.compiler.set_stance("force_eager"), learner.precision.compute():
            total, tokens = world.sums(*total_loss(learner.model, world.shares(windows)))
        loss = total / tokens
        if not total < math.inf:
            raise AtlasError(
                f"training stopped after step {progress.step}: the val loss is {loss:g}. {ADVICE}"
            )
        journal.validation(loss)
        progress.worse += 1
        if loss < progress.best_loss:
            progress.best_loss, progress.best_step, progress.worse = loss, progress.step, 0
            weights = whole_weights(learner)
            if world.is_first:
                self.checkpoints.keep_best(weights)
        if self.sample is not None:
            with torch.compiler.set_stance("force_eager"):
                journal.sample(self.sample())

    def _ended(self, progress: Progress) -> bool:
        """Whether all steps are done, or val has not got better for as long as it may."""
        patience = self.learner.train.patience
        patient = not patience or progress.worse < patience
        return progress.step >= self.learner.steps or not patient

    def _due(self, every: int, progress: Progress) -> bool:
        return progress.step % every == 0 or progress.step == self.learner.steps

    def _journal(self, progress: Progress) -> Journal:
        learner, world = self.learner, self.learner.world
        on_a_gpu = world.device.type == "cuda"  # a CPU is best at float32
        kind = learner.precision.kind if on_a_gpu else torch.float32
        rate = world.sums(matmul_flops(world.device, kind))[0]
        share = count(learner.model.config).training_flops / rate
        return Journal(progress, learner.steps, share, self.events if world.is_first else None)

    def _stopped(self, progress: Progress, written: bool) -> str:
        kept = "from there" if written else "from the checkpoint before, if there was one"
        return (
            f"stopped after step {progress.step} of {self.learner.steps}; "
            f"`dvc repro`, or the same `dvc exp run`, goes on {kept}"
        )
