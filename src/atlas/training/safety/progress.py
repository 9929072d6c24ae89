"""How far a training is, and what it has logged."""

import math
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, int | float]


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
    speed_rows: list[Row] = field(default_factory=list)
    samples: list[tuple[int, str]] = field(default_factory=list)
    unlogged: list[tuple[float, float]] = field(default_factory=list)
    batches: dict[str, Any] = field(default_factory=dict)
