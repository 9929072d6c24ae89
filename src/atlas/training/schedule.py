"""The learning rate as a pure function of the step."""

import math


def warmup_cosine(step: int, steps: int, warmup_steps: int, final: float) -> float:
    """The factor on the peak learning rate at a step (0-based).

    It climbs linearly over the warm-up, reaching 1 at its last step, and falls along half a
    cosine to ``final`` at the last step (SGDR without restarts, arXiv:1608.03983)::

        steps=6, warmup_steps=2, final=0.0: 0.5, 1.0, 0.853.., 0.5, 0.146.., 0.0

    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step + 1 - warmup_steps) / max(1, steps - warmup_steps)
    return final + (1 - final) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
