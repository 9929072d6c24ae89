"""A block: attention, then feed-forward, each added to the residual stream."""

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from atlas.model.attention import Attention, AttentionMetadata, LayerCache
from atlas.model.config import ModelConfig
from atlas.model.layers import FeedForward, make_norm


class Block(nn.Module):
    """A block of a decoder or an encoder; ``cross`` adds cross-attention to a source.

    ``norm_position`` is the place of the norm around each sublayer::

        pre        x + sublayer(norm(x))    GPT-2, Llama (arXiv:2002.04745)
        post       norm(x + sublayer(x))    the original (arXiv:1706.03762)
        reordered  x + norm(sublayer(x))    OLMo 2 (arXiv:2501.00656)

    """

    def __init__(self, config: ModelConfig, *, cross: bool = False) -> None:
        super().__init__()
        self.norm_position = config.norm_position
        self.dropout = nn.Dropout(config.dropout)
        self.attention_norm = make_norm(config)
        self.attention = Attention(config)
        if cross:
            self.cross_attention_norm = make_norm(config)
            self.cross_attention = Attention(config)
        self.feed_forward_norm = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x: Tensor,
        metadata: AttentionMetadata,
        cache: LayerCache | None = None,
        source: Tensor | None = None,
        source_metadata: AttentionMetadata | None = None,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C), with cross-attention to an encoded source (B, S, C)."""
        attend = partial(self.attention, metadata=metadata, cache=cache)
        x = self._add(x, self.attention_norm, attend)
        if source is not None:
            attend = partial(self.cross_attention, metadata=source_metadata, source=source)
            x = self._add(x, self.cross_attention_norm, attend)
        return self._add(x, self.feed_forward_norm, self.feed_forward)

    def _add(self, x: Tensor, norm: nn.Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Add the output of a sublayer to the residual stream (B, T, C)."""
        added: Tensor
        match self.norm_position:
            case "pre":
                added = x + self.dropout(sublayer(norm(x)))
            case "post":
                added = norm(x + self.dropout(sublayer(x)))
            case "reordered":
                added = x + self.dropout(norm(sublayer(x)))
        return added
