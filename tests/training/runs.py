"""Interrupt and compare training runs."""

import os
import signal
from typing import Any

import torch

from atlas.model.language_model import LanguageModel
from atlas.model.loss import Tally
from atlas.model.weights import weights_of
from atlas.training.metrics import TrainState
from atlas.training.trainer import Trainer


def same_weights(a: LanguageModel, b: LanguageModel) -> bool:
    ours, theirs = weights_of(a), weights_of(b)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def logs(state: TrainState) -> tuple[Any, ...]:
    return state.train_rows, state.val_rows, state.best_loss, state.best_step


def stop_after(monkeypatch, training: Trainer, step: int) -> None:
    """Send a signal in the middle of a step (the first is 1)."""
    learn = training.train_step.update

    def interrupted(batch, number, watch=None):
        if number + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(batch, number, watch)

    monkeypatch.setattr(training.train_step, "update", interrupted)


def with_losses(monkeypatch, training: Trainer, losses: list[float]) -> None:
    """Make validations return these losses."""
    given = iter(losses)
    measured = "atlas.training.trainer.tally"
    monkeypatch.setattr(measured, lambda *_: Tally(next(given), 1, 0, 1))
