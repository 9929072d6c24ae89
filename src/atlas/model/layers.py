"""Norms and feed-forward layers of a block.

RMSNorm (arXiv:1910.07467) or LayerNorm (arXiv:1607.06450). The feed-forward layer maps each token
from C channels to F and back.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.config import ModelConfig


def make_norm(config: ModelConfig) -> nn.Module:
    """Make the norm that the config names, over the C channels of the residual stream."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.d_model, eps=config.norm_eps)
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.norm_bias)


def make_qk_norms(config: ModelConfig) -> tuple[nn.Module | None, nn.Module | None]:
    """RMSNorms of the queries and of the keys (arXiv:2302.05442).

    ``head`` norms the D channels of each head with one scale for all heads (Qwen 3), ``all`` the
    channels of all heads together (OLMo 2).
    """
    if config.qk_norm is None:
        return None, None
    widths = (config.query_channels, config.key_channels)
    if config.qk_norm == "head":
        widths = (config.head_size, config.head_size)
    query_norm, key_norm = (nn.RMSNorm(width, eps=config.norm_eps) for width in widths)
    return query_norm, key_norm


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


class FeedForward(nn.Module):
    """Two layers, or three with a gate.

    Plain: down(activation(up(x))) (Vaswani et al. 2017, arXiv:1706.03762, 3.3). SwiGLU and GEGLU:
    down(activation(gate(x)) * up(x)) (arXiv:2002.05202).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation = (ACTIVATIONS | GATES)[config.feed_forward]
        self.gate: nn.Linear | None = None
        if config.feed_forward in GATES:
            self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.linear_bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.linear_bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.linear_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        if self.gate is None:
            hidden = self.activation(self.up(x))  # (B, T, F)
        else:
            hidden = self.activation(self.gate(x)) * self.up(x)  # (B, T, F)
        output: Tensor = self.down(hidden)
        return output
