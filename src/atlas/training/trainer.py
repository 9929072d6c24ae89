"""The training loop.

Each step computes the gradient of a batch and updates the weights. At intervals the loop logs a
row, measures the val loss, keeps the best weights and writes a checkpoint. It can stop after any
step, and a resumed run ends with the same bytes as an uninterrupted one.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path

import torch

from atlas.cleaning.documents import SPLITS, Split
from atlas.errors import AtlasError, NotWritten, Stopped
from atlas.model.baselines import Bigram
from atlas.model.config import ModelConfig
from atlas.model.counts import Counts, count
from atlas.model.language_model import LanguageModel
from atlas.model.loss import Tally, tally
from atlas.model.weights import initialize, make_model, weights_of
from atlas.params.schema import Params, TrainParams
from atlas.params.settings import settings
from atlas.params.start import is_empty
from atlas.tokens.batches import BatchLoader, reader_count
from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import EvaluationWindows, TrainingWindows, Windows
from atlas.training.checkpoint import Checkpoints, stop_requests, trained_weights
from atlas.training.distributed import DistributedContext
from atlas.training.lora import add_lora
from atlas.training.memory import available_memory, check_memory, trained_count
from atlas.training.metrics import (
    BestEffort,
    MetricsLogger,
    Row,
    TrainState,
    matmul_flops,
    val_row,
    write_live_files,
)
from atlas.training.start import freeze, load_start
from atlas.training.train_step import (
    LayerNormRecorder,
    StepResult,
    TrainStep,
    has_bfloat16,
    should_compile,
)

DIVERGED = 2.0  # times the loss of uniform guessing
CHECKPOINT_SHARE = 0.05  # of the time, at most, is spent on checkpoints
LOWER_LR = "Lower train.lr (for Muon also train.muon_lr), or raise train.warmup_share"


@dataclass
class Trainer:
    """One training run; each of its processes has a Trainer."""

    model: LanguageModel
    params: Params
    splits: Mapping[Split, TokenSplit]
    checkpoints: Checkpoints
    context: DistributedContext
    events: Path | None = None  # folder for TensorBoard
    live: Path | None = None  # folder for the curves that DVC shows while training runs
    sample: Callable[[], str] | None = None  # generates a text with the current weights

    def __post_init__(self) -> None:
        train, length = self.params.train, self.model.config.sequence_length
        micro_batch = train.batch_size // train.grad_accum_steps
        self.val = EvaluationWindows(self.splits["val"], length, micro_batch)
        self.train_sample = EvaluationWindows(self.splits["train"], length, micro_batch)

    @cached_property
    def data(self) -> TrainingWindows:
        """The windows of the training text, in training order."""
        train, length = self.params.train, self.model.config.sequence_length
        mix = self.params.corpus.mix
        return TrainingWindows(self.splits["train"], length, train.batch_size, train.seed, mix)

    @cached_property
    def train_step(self) -> TrainStep:
        """The model with its optimizers."""
        train = self.params.train
        steps = total_steps(train, self.data.per_epoch)
        tokens = steps * train.batch_size * self.model.config.sequence_length
        flops = tokens * self._counts.training_flops
        return TrainStep(
            self.model,
            train,
            steps,
            self.context,
            compiled=should_compile(flops, self.context.device),
        )

    @property
    def _counts(self) -> Counts:
        """Size and operations of the model on windows of ``train.sequence_length``."""
        config = self.model.config
        return count(config.model_copy(update={"context_length": config.sequence_length}))

    def fit(self) -> TrainState:
        """Train to the last step, starting from the newest checkpoint; every process must call it.

        ``checkpoints`` then has the best weights, the model the last ones. SIGINT and
        SIGTERM write a checkpoint and raise ``Stopped``. A bigram model is counted by the main
        process.
        """
        if isinstance(self.model, Bigram):
            return self._count_bigrams(self.model) if self.context.is_main else TrainState()
        train_step, params = self.train_step, self.train_step.params
        context = train_step.context
        interval = settings().checkpoint_seconds  # 0: after each step
        rows = context.local_rows(params.batch_size)
        batches = BatchLoader(self.data, context.device, reader_count(context.device), rows)
        state = self.checkpoints.resume(train_step)
        if state.data_position:
            batches.load_state_dict(state.data_position)
        with (
            stop_requests() as stops,
            closing(self._logger(state)) as logger,
            closing(batches.read()) as reader,
        ):
            if not state.val_rows:
                self._validate(state, logger)
            saved = time.monotonic()
            while not self._finished(state):
                norms = None
                if params.log_layers and (state.step + 1) % params.log_layers == 0:
                    norms = LayerNormRecorder(train_step.model)
                with logger.measure_speed():
                    result = train_step.update(next(reader), state.step, norms)
                    if result.failed:
                        raise AtlasError(self._describe_failure(state.step, result))
                    logger.log_step(result)
                    if norms is not None:
                        state.layer_rows += norms.rows(state.step)
                if self._is_due(params.log_every, state) and state.unlogged:
                    self._log(state, logger)
                if self._is_due(params.eval_every, state):
                    self._validate(state, logger)
                # All processes stop and save together.
                overdue = context.is_main and time.monotonic() - saved >= interval
                stopping, saving = context.sum(bool(stops), overdue)
                if stopping or saving:
                    state.data_position = batches.state_dict()
                    started = time.monotonic()
                    written = self.checkpoints.save(train_step, state)
                    saved = time.monotonic()
                    if interval:  # large ones take seconds
                        interval = max(interval, (saved - started) / CHECKPOINT_SHARE)
                if stopping:
                    place = "there" if written else "the previous checkpoint, if any"
                    raise Stopped(
                        f"stopped after step {state.step} of {train_step.steps}; `dvc repro`, or "
                        f"the same `dvc exp run`, continues from {place}"
                    )
            if state.unlogged:  # patience ended training between two rows
                self._log(state, logger)
        return state

    def write_outputs(
        self, state: TrainState, write: Callable[[], None], discard: Callable[[], None]
    ) -> None:
        """Write the outputs in the main process; every process must call this.

        If they can't be written, as on a full disk, remove older checkpoints and try again. If that
        fails, too, keep a checkpoint of the last step, from which the next run finishes.
        """
        context, checkpoints = self.context, self.checkpoints
        for _ in range(2):
            error: AtlasError | None = None
            try:
                if context.is_main:
                    write()
            except NotWritten as not_written:
                error = not_written
            except OSError as os_error:
                error = NotWritten(os_error.filename or "outputs", os_error.strerror)
            if not context.any(error is not None):
                return
            if context.is_main:
                discard()
                checkpoints.make_room()
        if not isinstance(self.model, Bigram):  # a bigram model is counted again in seconds
            is_saved = checkpoints.save(self.train_step, state)
            last = state.step if is_saved else checkpoints.last_step()
            error = AtlasError(f"{error}: it continues from step {last} of {self.train_step.steps}")
        raise error or AtlasError("the main process could not write the outputs")

    def _log(self, state: TrainState, logger: MetricsLogger) -> None:
        epoch = float(state.step * self.data.batch_size / self.data.per_epoch)
        logger.log_train(self.train_step.optimizers.lr, epoch)
        guessing = math.log(self.train_step.model.config.vocab_size)
        first, last = state.train_rows[0]["loss"], state.train_rows[-1]["loss"]
        if not last <= DIVERGED * max(first, guessing):
            raise AtlasError(
                f"training stopped after step {state.step}: the loss is {last:.4g}, and uniform "
                f"guessing would give {guessing:.3g}. {LOWER_LR}"
            )

    def _describe_failure(self, step: int, result: StepResult) -> str:
        """Describe a step (0-based) whose loss or gradient is NaN or infinite."""
        norms = {
            name: parameter.grad.norm().item()
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }
        # NaN compares with nothing, so it is sorted to the front explicitly.
        worst = sorted(norms, key=lambda name: (norms[name] == norms[name], -norms[name]))
        largest = ", ".join(f"{name} {norms[name]:g}" for name in worst[:3])
        windows = ", ".join(map(str, self.data.places(step)[:4]))
        return (
            f"training stopped before the update of step {step + 1}: the loss is {result.loss:g}, "
            f"the norm of the gradient {result.grad_norm:g} (windows at {windows}, ...; largest "
            f"gradients: {largest}). {LOWER_LR}; the last checkpoint is kept"
        )

    def _validate(self, state: TrainState, logger: MetricsLogger) -> None:
        params, model = self.train_step.params, self.train_step.model
        val = self._measure(self.val, params.eval_windows)
        if not val.loss < math.inf:
            stopped = f"training stopped after step {state.step}: the val loss is {val.mean:g}"
            raise AtlasError(f"{stopped}. {LOWER_LR}")
        windows = params.eval_train_windows
        train = self._measure(self.train_sample, windows) if windows else None
        row = val_row(state.step, val, train, model)
        state.evals_since_best += 1
        if val.mean < state.best_loss:
            state.best_loss, state.best_step = val.mean, state.step
            state.evals_since_best = 0
            weights = trained_weights(model, self.train_step.context)
            if self.train_step.context.is_main:
                self.checkpoints.keep_best(weights)
        logger.log_val(row)
        if self.sample is not None:
            with torch.compiler.set_stance("force_eager"):
                logger.log_sample(self.sample())

    def _measure(self, windows: EvaluationWindows, count: int) -> Tally:
        context = self.train_step.context
        with torch.compiler.set_stance("force_eager"), self.train_step.precision.autocast():
            local = tally(self.train_step.model, context.split_batches(windows.spread(count)))
        return Tally(*context.sum(*local))

    def _finished(self, state: TrainState) -> bool:
        """True after the last step, or once val has not improved for ``patience`` validations."""
        patience = self.train_step.params.patience
        out_of_patience = patience is not None and state.evals_since_best >= patience
        return state.step >= self.train_step.steps or out_of_patience

    def _is_due(self, every: int, state: TrainState) -> bool:
        return state.step % every == 0 or state.step == self.train_step.steps

    def _logger(self, state: TrainState) -> MetricsLogger:
        train_step, context = self.train_step, self.train_step.context
        is_fast = context.device.type == "cuda" or has_bfloat16(context.device)
        dtype = train_step.precision.dtype if is_fast else torch.float32
        peak_flops = context.sum(matmul_flops(context.device, dtype))[0]
        # The gradient of a weight costs as much as its forward pass; frozen weights have none.
        share = trained_count(self.model) / self.model.parameter_count()
        utilization = (2 + share) * self._counts.forward_flops / peak_flops
        return MetricsLogger(
            state, train_step.steps, utilization, self.events, self.live, is_main=context.is_main
        )

    def _count_bigrams(self, model: Bigram) -> TrainState:
        """Fill the table of a bigram model from all pairs of the training text.

        Returns the log of one step that reads the whole text.
        """
        started = time.perf_counter()
        pairs = BigramCounts.count(self.splits["train"], model.config.sequence_length)
        with torch.no_grad():
            model.table.weight.copy_(torch.from_numpy(pairs.bigram_table()))
        losses = pairs.bigram_losses(pairs.first, pairs.second)
        seconds = time.perf_counter() - started
        self.checkpoints.keep_best(weights_of(model))
        train_loss = float(pairs.counts @ losses) / int(pairs.counts.sum())
        val = tally(model, self.val.all())
        windows = self.params.train.eval_train_windows
        train = tally(model, self.train_sample.spread(windows)) if windows else None
        row: Row = {"step": 1, "loss": train_loss, "loss_average": train_loss}
        speed: Row = {"step": 1, "tokens_per_second": round(pairs.read / seconds)}
        state = TrainState(
            step=1,
            best_step=1,
            best_loss=val.mean,
            train_rows=[row | {"lr": 0, "gradient_norm": 0}],
            val_rows=[val_row(1, val, train, model)],
            speed_rows=[speed | {"flop_utilisation": 0}],
            samples=[(1, self.sample())] if self.sample is not None else [],
            tokens=pairs.read,
        )
        BestEffort("live metrics", self.live)(partial(write_live_files, state))
        return state


def open_splits(
    folder: Path, sequence_length: int, max_train_tokens: int | None
) -> dict[Split, TokenSplit]:
    """Open the token shards of every split; reject one that is shorter than a window.

    Test is checked as well, because evaluate would reject it only after the training.
    """
    limits = {"train": max_train_tokens}
    splits = {split: TokenSplit(folder, split, limits.get(split)) for split in SPLITS}
    for split in splits.values():
        Windows(split, sequence_length, batch_size=1)
    return splits


def build_model(
    params: Params,
    index: TokenIndex,
    context: DistributedContext,
    tokenizer: Tokenizer | None = None,
) -> LanguageModel:
    """Make the model of params.yaml for the vocabulary of the tokens.

    Its weights are those in the folder ``train.start``, or new ones if that is empty. Without a
    tokenizer, the end-of-text token begins and ends every text.
    """
    all_tokens = index.splits["train"].tokens
    config = ModelConfig(
        **params.model.model_dump(),
        vocab_size=index.vocab_size,
        bos=tokenizer.bos if tokenizer else index.eos,
        eos=index.eos,
        end_ids=tuple(sorted(tokenizer.end_ids)) if tokenizer else (index.eos,),
        sequence_length=params.train.sequence_length or params.model.context_length,
        separator=index.separator,
        add_bos_token=not index.crosses_documents or index.bos is not None,
        tokenizer_sha256=index.tokenizer_sha256,
        learned_tokens=min(params.train.max_train_tokens or all_tokens, all_tokens),
        is_chat=index.splits["train"].conversations > 0,
    )
    check_memory(config, params.train, context, available_memory(context))
    model = make_model(config)
    start = Path(params.train.start)
    if is_empty(start):
        initialize(model, params.train.seed, params.train.init)
    else:
        load_start(model, start)
    freeze(model, params.train.freeze)
    add_lora(model, params.train.lora, params.train.seed)
    return model.to(context.device)


def total_steps(train: TrainParams, windows_per_epoch: int | Fraction) -> int:
    """``train.steps``, or the steps that ``train.epochs`` take."""
    if train.epochs is None:
        return train.steps
    return math.ceil(train.epochs * windows_per_epoch / train.batch_size)


def corpora_seen(data: TrainingWindows, state: TrainState) -> dict[str, int | float]:
    """Return the weight of each corpus of a mix, and the tokens that the model saw of it."""
    seen = data.seen(state.step)
    total = max(sum(seen.values()), 1)
    metrics: dict[str, int | float] = {}
    for label, source in data.sources.items():
        metrics[f"weight.{label}"] = source.numerator / source.denominator / source.windows
        metrics[f"tokens_seen.{label}"] = seen[label]
        metrics[f"share_seen.{label}"] = seen[label] / total
    return metrics
