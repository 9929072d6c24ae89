"""What the tests of training do to a run, and how they compare two."""

import os
import signal
from typing import Any

import torch

from atlas.model.language_model import LanguageModel
from atlas.model.loss import Tally
from atlas.model.storage import weights_of
from atlas.training.metrics import Progress
from atlas.training.trainer import Training


def same_weights(a: LanguageModel, b: LanguageModel) -> bool:
    ours, theirs = weights_of(a), weights_of(b)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def logs(progress: Progress) -> tuple[Any, ...]:
    return progress.train_rows, progress.val_rows, progress.best_loss, progress.best_step


def stop_after(monkeypatch, training: Training, step: int) -> None:
    """Lets a signal come in the middle of a step (the first is 1)."""
    learn = training.learner.learn

    def interrupted(batch, number, watch=None):
        if number + 1 == step:
            os.kill(os.getpid(), signal.SIGINT)
        return learn(batch, number, watch)

    monkeypatch.setattr(training.learner, "learn", interrupted)


def with_losses(monkeypatch, training: Training, losses: list[float]) -> None:
    """Gives validations these losses."""
    given = iter(losses)
    measured = "atlas.training.trainer.tally"
    monkeypatch.setattr(measured, lambda *_: Tally(next(given), 1, 0, 1))
