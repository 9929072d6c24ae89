"""What is measured again and again while a model learns, on val and on what it learns from."""

from dataclasses import dataclass

import torch

from atlas.errors import AtlasError
from atlas.tokens.windows import EvaluationWindows
from atlas.training.safety.diagnosis import ADVICE
from atlas.training.safety.progress import Row
from atlas.training.steps.learner import Learner
from atlas.training.steps.loss import Tally, perplexity, tally
from atlas.training.steps.norms import norm


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
        if params.eval_train_windows:
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
