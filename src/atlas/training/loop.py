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
from atlas.tokens.windows import TrainingWindows
from atlas.training.journal import Journal
from atlas.training.safety.checkpoint import Checkpoints
from atlas.training.safety.diagnosis import divergence, not_finite
from atlas.training.safety.progress import Progress
from atlas.training.safety.snapshot import whole_weights
from atlas.training.safety.stopping import StopRequest
from atlas.training.steps.learner import Learner
from atlas.training.steps.norms import LayerNorms
from atlas.training.utilisation import matmul_flops
from atlas.training.validation import Validation


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
        validation: what is measured now and then.
        checkpoints: where the run is kept safe.
        events: folder of the TensorBoard events; None for none.
        sample: writes a text with the model of now; None for no samples.
    """

    learner: Learner
    data: TrainingWindows
    validation: Validation
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
        learner = self.learner
        every = learner.train.log_layers
        watch = LayerNorms(learner.model) if every and not (progress.step + 1) % every else None
        made = learner.learn(batch, progress.step, watch)
        if not made.usable:
            raise AtlasError(not_finite(progress.step, made, learner.model, self.data))
        journal.step(made)
        if watch is not None:
            progress.layer_rows += watch.rows(progress.step)

    def _log(self, progress: Progress, journal: Journal) -> None:
        epoch = progress.step * self.data.batch_size / self.data.per_epoch
        journal.row(self.learner.optimizers.lr, epoch)
        if problem := divergence(progress, self.learner.model.config.vocab_size):
            raise AtlasError(problem)

    def _validate(self, progress: Progress, journal: Journal) -> None:
        row = self.validation.row(self.learner, progress.step)
        journal.validation(row)
        progress.worse += 1
        if row["loss"] < progress.best_loss:
            progress.best_loss, progress.best_step = row["loss"], progress.step
            progress.worse = 0
            weights = whole_weights(self.learner)
            if self.learner.world.is_first:
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
