"""The feed-forward part of a block: each token on its own, out to F channels and back to C."""

import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.config import ModelConfig


class GeluFeedForward(nn.Module):
    """down(gelu(up(x))), as in GPT-2, with the tanh form of GELU (arXiv:1606.08415)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        output: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return output


class SwiGluFeedForward(nn.Module):
    """down(silu(gate(x)) * up(x)), as in Llama (SwiGLU, arXiv:2002.05202)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        output: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return output


FEED_FORWARDS = {"gelu": GeluFeedForward, "swiglu": SwiGluFeedForward}
