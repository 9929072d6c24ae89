"""RoPE as runtimes have it who know no model without."""

from atlas.model.config import ModelConfig

NO_ROTATION = 1e30  # positions divided by it are 0 for every angle


def scaling_of(config: ModelConfig) -> float:
    """What positions are divided by; without positions of any kind, so much that none is left."""
    return NO_ROTATION if config.positions == "none" else config.rope_scaling
