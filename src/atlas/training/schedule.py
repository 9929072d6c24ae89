"""The learning rate as a pure function of the step."""

import math

from atlas.params.schema import TrainParams


def learning_rate_factor(train: TrainParams, step: int, steps: int) -> float:
    """The learning rate at ``step`` (0-based) of ``steps``, as a fraction of its peak.

    A linear warm-up reaches 1 at its last step. ``schedule`` then names the way down to
    ``min_lr_ratio`` at the last step::

        steps=6, warmup_steps=2, min_lr_ratio=0.0
        cosine:                   0.5, 1.0, 0.853.., 0.5, 0.146.., 0.0
        linear:                   0.5, 1.0, 0.75, 0.5, 0.25, 0.0
        constant:                 0.5, 1.0, 1.0, 1.0, 1.0, 1.0
        wsd, decay_share=1/3:     0.5, 1.0, 1.0, 1.0, 0.5, 0.0

    """
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    done, left = step + 1 - train.warmup_steps, max(1, steps - train.warmup_steps)
    match train.schedule:
        case "cosine":
            return cosine(done / left, train.min_lr_ratio)
        case "linear":
            return linear(done / left, train.min_lr_ratio)
        case "constant":
            return 1.0
        case "wsd":
            decay_steps = min(left, round(train.decay_share * steps))
            return warmup_stable_decay(done, left, decay_steps, train.min_lr_ratio)


def cosine(progress: float, final: float) -> float:
    """Half a cosine from 1 to ``final`` (SGDR without restarts, arXiv:1608.03983)."""
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


def linear(progress: float, final: float) -> float:
    """A straight line from 1 to ``final``."""
    return 1 - (1 - final) * progress


def warmup_stable_decay(done: int, steps: int, decay_steps: int, final: float) -> float:
    """WSD: 1, then a straight line to ``final`` over the last steps (MiniCPM, arXiv:2404.06395).

    Two runs that differ only in ``steps`` are the same until the shorter one starts to decay.
    """
    decayed = done - (steps - decay_steps)
    return 1.0 if decayed <= 0 else linear(decayed / decay_steps, final)
