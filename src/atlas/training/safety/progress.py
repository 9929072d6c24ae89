"""How far a training is, and what it has logged."""

import math
from dataclasses import dataclass, field
from typing import Any

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
