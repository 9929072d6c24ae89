"""Norms and feed-forward layers of a block.

RMSNorm (arXiv:1910.07467) or LayerNorm (arXiv:1607.06450). The feed-forward layer maps each token
from C channels to F and back.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """Make the norm over the C channels of the residual stream that the config names."""
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


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form (arXiv:1606.08415), which every runtime supports."""
    return F.gelu(x, approximate="tanh")


def squared_relu(x: Tensor) -> Tensor:
    """ReLU² (Primer, arXiv:2109.08668)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "silu": F.silu,
    "relu": F.relu,
    "relu2": squared_relu,
}
# Those whose backward pass needs only their output, which the next layer saves anyway.
SAVE_OUTPUT_ONLY = {"relu"}
GATES: dict[str, Callable[[Tensor], Tensor]] = {"swiglu": F.silu, "geglu": gelu}


class PlainFeedForward(nn.Module):
    """down(activation(up(x))) (Vaswani et al. 2017, arXiv:1706.03762, 3.3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.feed_forward]
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        output: Tensor = self.down(self.activation(self.up(x)))
        return output


class GatedFeedForward(nn.Module):
    """down(activation(gate(x)) * up(x)): SwiGLU and GEGLU (arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = GATES[config.feed_forward]
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        output: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return output


def make_feed_forward(config: ModelConfig) -> nn.Module:
    """Make the layer that ``feed_forward`` names."""
    gated = config.feed_forward in GATES
    return GatedFeedForward(config) if gated else PlainFeedForward(config)
