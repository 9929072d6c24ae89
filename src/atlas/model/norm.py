"""The norms: RMSNorm (arXiv:1910.07467) and LayerNorm (arXiv:1607.06450)."""

from torch import nn

from atlas.model.config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """A norm over the C channels of the residual stream, with a learned scale."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)
