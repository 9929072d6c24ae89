"""A model and its training from params.yaml, the token shards and the machine.

What is measured again and again while a model learns, on val and on what it learns from.

The training loop.

Each step: a batch, its gradient, an update. Every so often the val loss is measured, a sample is
drawn, and the best weights are kept. The loop can be stopped at any moment and goes on exactly
where it was.
"""

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from atlas.cleaning.documents import Split
from atlas.errors import AtlasError, Stopped
from atlas.model.config import ModelConfig
from atlas.model.counts import count
from atlas.model.initialize import initialise, make_model
from atlas.model.language_model import LanguageModel
from atlas.model.loss import Tally, perplexity, tally
from atlas.params.schema import Params, TrainParams
from atlas.tokens.batches import BatchLoader, TensorBatch, reader_count
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.windows import EvaluationWindows, TrainingWindows
from atlas.training.checkpoint import Checkpoints, StopRequest, whole_weights
from atlas.training.distributed import World
from atlas.training.memory import ADVICE, available_bytes, check_memory, divergence, not_finite
from atlas.training.metrics import Journal, Progress, Row, matmul_flops
from atlas.training.train_step import LayerNorms, Learner, compilation_pays, norm


@dataclass(frozen=True)
class Validation:
    """Windows of val, and as a yardstick some of the training text; always the same.

    Attributes:
        val: windows that pick the best weights.
        train: of the training text.
    """

    val: EvaluationWindows
    train: EvaluationWindows

    def row(self, learner: Learner, step: int) -> Row:
        """A row of metrics/val.csv: of the model as it is after ``step`` steps.

        Raises:
            AtlasError: the val loss is not finite.
        """
        params = learner.train
        val = _measure(learner, self.val, params.eval_windows)
        if not val.loss < float("inf"):
            raise AtlasError(
                f"training stopped after step {step}: the val loss is {val.mean:g}. {ADVICE}"
            )
        train = None
        if params.eval_train_windows is not None:
            train = _measure(learner, self.train, params.eval_train_windows)
        return val_row(step, val, train, norm(learner.model.parameters()).item())


def val_row(step: int, val: Tally, train: Tally | None, weight_norm: float) -> Row:
    """A row of metrics/val.csv."""
    row: Row = {
        "step": step,
        "loss": val.mean,
        "perplexity": perplexity(val.mean),
        "accuracy": val.accuracy,
    }
    if train is not None:
        row |= {"train_loss": train.mean, "train_accuracy": train.accuracy}
    return row | {"weight_norm": weight_norm}


def _measure(learner: Learner, windows: EvaluationWindows, count: int) -> Tally:
    world = learner.world
    with torch.compiler.set_stance("force_eager"), learner.precision.compute():
        own = tally(learner.model, world.shares(windows.spread(count)))
    return Tally(*world.sums(*own))


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
        batches = BatchLoader(self.data, world.device, reader_count(world.device), share)
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


def new_model(params: Params, index: TokenIndex, world: World) -> LanguageModel:
    """A model of params.yaml's shape for the vocabulary of the tokens, with its first weights.

    Raises:
        AtlasError: its training would not fit into memory.
    """
    everything = index.splits["train"].tokens
    config = ModelConfig(
        **params.model.model_dump(),
        vocab_size=index.vocab_size,
        eos=index.eos,
        separator=index.separator,
        add_bos_token=index.windows == "padded",
        tokenizer_sha256=index.tokenizer_sha256,
        learned_tokens=min(params.train.max_train_tokens or everything, everything),
    )
    check_memory(config, params.train, world, available_bytes(world))
    model = make_model(config)
    initialise(model, params.train.seed, params.train.init)
    return model.to(world.device)


def make_training(
    model: LanguageModel,
    params: Params,
    splits: Mapping[Split, TokenSplit],
    checkpoints: Checkpoints,
    world: World,
    *,
    events: Path | None = None,
    sample: Callable[[], str] | None = None,
) -> Training:
    """A training that is ready to run.

    Raises:
        AtlasError: the text is too short for the context, or ends within the warm-up.
    """
    train, length = params.train, params.model.context_length
    data = TrainingWindows(splits["train"], length, train.batch_size, train.seed)
    steps = steps_of(train, data.per_epoch)
    tokens = steps * train.batch_size * length
    learner = Learner(
        model,
        train,
        steps,
        world,
        compiled=compilation_pays(model.config, tokens, world.device),
    )
    at_once = train.batch_size // train.grad_accum_steps
    validation = Validation(
        EvaluationWindows(splits["val"], length, at_once),
        EvaluationWindows(splits["train"], length, at_once),
    )
    return Training(learner, data, validation, checkpoints, events, sample)


def steps_of(train: TrainParams, windows: int) -> int:
    """How many steps a training has, with so many windows in an epoch.

    Raises:
        AtlasError: it ends within its warm-up.
    """
    if not train.epochs:
        return train.steps
    steps = math.ceil(train.epochs * windows / train.batch_size)
    if train.warmup_steps > steps:
        raise AtlasError(
            f"train.warmup_steps ({train.warmup_steps}) is more than the {steps} steps of "
            f"{train.epochs} epochs: the learning rate would never reach train.lr"
        )
    return steps
