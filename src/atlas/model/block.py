"""A block of the decoder: attention and feed-forward, each on a normed copy of the stream."""

from torch import Tensor, nn

from atlas.model.attention import Attention
from atlas.model.config import ModelConfig
from atlas.model.feed_forward import FEED_FORWARDS
from atlas.model.norm import make_norm
from atlas.model.positions import RotaryPositions


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x)) (pre-norm, arXiv:2002.04745)."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, rotary)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.dropout(self.attention(self.attention_norm(x)))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x  # noqa: RET504 - the two lines show the two branches
