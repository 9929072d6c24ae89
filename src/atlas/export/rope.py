"""RoPE parameters for runtimes that have no model without RoPE."""

from atlas.model.config import ModelConfig

NO_ROTATION = 1e30  # divides positions so far that every angle is 0


def rope_scaling(config: ModelConfig) -> float:
    """The factor that positions are divided by; without positions, so large that none remain."""
    return NO_ROTATION if config.positions == "none" else config.rope_scaling
