"""The norms: RMSNorm (arXiv:1910.07467) and LayerNorm (arXiv:1607.06450)."""

from torch import nn

from atlas.model.config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """A norm over the C channels of the residual stream, with a learned scale."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


def make_qk_norms(config: ModelConfig) -> tuple[nn.Module | None, nn.Module | None]:
    """RMSNorms of the queries and of the keys (arXiv:2302.05442).

    ``head`` norms the D channels of each head with one scale for all heads (Qwen 3), ``all`` the
    channels of all heads together (OLMo 2).
    """
    match config.qk_norm:
        case "head":
            query_width = key_width = config.head_size
        case "all":
            query_width, key_width = config.d_model, config.key_channels
        case _:
            return None, None
    return (
        nn.RMSNorm(query_width, eps=config.norm_eps),
        nn.RMSNorm(key_width, eps=config.norm_eps),
    )
