"""Why a training cannot go on, in one line."""

import math

from torch import nn

from atlas.tokens.windows import TrainingWindows
from atlas.training.safety.progress import Progress
from atlas.training.steps.learner import Step

WORST = 3
DIVERGED = 2.0  # times the loss of guessing
ADVICE = "Lower train.lr (of Muon train.muon_lr as well), or lengthen train.warmup_steps"


def not_finite(step: int, made: Step, model: nn.Module, data: TrainingWindows) -> str:
    """What is known of a step (0-based) whose loss or gradient is NaN or infinite."""
    norms = {
        name: parameter.grad.norm().item()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    # A NaN compares with nothing, so it is put first by hand.
    worst = sorted(norms, key=lambda name: (norms[name] == norms[name], -norms[name]))[:WORST]
    windows = [str(number) for number, _ in data.places(step)[:4]]
    return (
        f"training stopped before the update of step {step + 1}: the loss is {made.loss:g}, the "
        f"norm of the gradient {made.norm:g} (windows {', '.join(windows)}, ...; largest "
        f"gradients: {', '.join(f'{name} {norms[name]:g}' for name in worst)}). {ADVICE}; the "
        "last checkpoint stays"
    )


def divergence(progress: Progress, vocab_size: int) -> str | None:
    """What is wrong with a loss that is far above that of guessing; None if it is not."""
    guessing = math.log(vocab_size)
    first, last = progress.train_rows[0]["loss"], progress.train_rows[-1]["loss"]
    if last <= DIVERGED * max(first, guessing):
        return None
    return (
        f"training stopped after step {progress.step}: the loss is {last:.4g}, and guessing would "
        f"give {guessing:.3g}. {ADVICE}"
    )
