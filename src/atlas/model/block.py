"""A block: attention, then feed-forward, each added to the residual stream."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from atlas.model.attention import Attention, AttentionMetadata, LayerCache
from atlas.model.config import ModelConfig
from atlas.model.layers import make_feed_forward, make_norm


class Residual(nn.Module):
    """Add the output of a sublayer to the residual stream.

    ``pre``     x + part(norm(x))    GPT-2, Llama (arXiv:2002.04745)
    ``post``    norm(x + part(x))    the original (arXiv:1706.03762)
    ``reordered``  x + norm(part(x))    OLMo 2 (arXiv:2501.00656)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.place = config.norm_position
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, norm: nn.Module, part: Callable[[Tensor], Tensor]) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        added: Tensor
        match self.place:
            case "pre":
                added = x + self.dropout(part(norm(x)))
            case "post":
                added = norm(x + self.dropout(part(x)))
            case "reordered":
                added = x + self.dropout(norm(part(x)))
        return added


class Block(nn.Module):
    """A block of a decoder or an encoder; ``metadata`` sets which tokens are visible."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = make_feed_forward(config)
        self.residual = Residual(config)

    def forward(
        self, x: Tensor, metadata: AttentionMetadata, cache: LayerCache | None = None
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C)."""
        x = self.residual(
            x, self.attention_norm, partial(self.attention, metadata=metadata, cache=cache)
        )
        x = self.residual(x, self.feed_forward_norm, self.feed_forward)
        return x  # noqa: RET504 - the two lines show the two branches


class CrossBlock(nn.Module):
    """A decoder block of an encoder-decoder, with cross-attention to the source."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        self.cross_attention_norm = make_norm(config)
        self.cross_attention = Attention(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = make_feed_forward(config)
        self.residual = Residual(config)

    def forward(
        self,
        x: Tensor,
        metadata: AttentionMetadata,
        source: Tensor,
        source_metadata: AttentionMetadata,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C), attending to an encoded source (B, S, C)."""
        attend_source = partial(self.cross_attention, metadata=source_metadata, source=source)
        x = self.residual(x, self.attention_norm, partial(self.attention, metadata=metadata))
        x = self.residual(x, self.cross_attention_norm, attend_source)
        x = self.residual(x, self.feed_forward_norm, self.feed_forward)
        return x  # noqa: RET504 - the three lines show the three branches
