"""The encoder-decoder: it reads a question in both directions, then writes the answer.

    Max 3 7 1 =          the source, up to the separator
              = 7 .      the target, from the separator on

Both are in the same row of ids, so it trains on the same batches as a decoder.
"""

import torch
from torch import Tensor, nn

from atlas.model.attention import AttentionMetadata
from atlas.model.block import Block
from atlas.model.config import ModelConfig
from atlas.model.decoder import Transformer
from atlas.model.language_model import check_ids, check_rows
from atlas.model.layers import make_norm
from atlas.model.masks import AttentionMask, additive_mask


class EncoderDecoder(Transformer):
    """A transformer after Vaswani et al. 2017 (arXiv:1706.03762).

    ``n_layer`` blocks read the source and as many write the target. Both share the embedding and
    the positions, which start at 0 in each.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.separator is None:
            raise ValueError("an encoder-decoder needs a separator between source and target")
        self.separator = config.separator
        self.encoder = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.encoder_norm = nn.Identity() if config.norm_position == "post" else make_norm(config)
        self.decoder = nn.ModuleList(Block(config, cross=True) for _ in range(config.n_layer))

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V): for each of ``ids`` (B, T), those of the token after it.

        In the source, only those after its last token have a meaning.
        """
        check_ids(self.config, ids, mask)
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        separators = (ids == self.separator) & mask
        so_far = separators.cumsum(dim=1)
        in_target = (so_far > 0) & mask
        in_source = (so_far - separators.long() == 0) & mask
        check_rows(in_target, f"holds no separator (id {self.separator}): end the question with it")
        return self.decode(ids, in_target, self.encode(ids, in_source), in_source)

    def encode(self, ids: Tensor, mask: Tensor, weights: list[Tensor] | None = None) -> Tensor:
        """Encode the source: ids (B, S), where ``mask`` (B, S) is True, to (B, S, C).

        ``weights`` receives the attention weights of each block, (B, H, S, S).
        """
        check_ids(self.config, ids, mask)
        attention_mask = AttentionMask.from_padding(mask)
        x = self.embed(ids, attention_mask.query_positions)  # (B, S, C)
        metadata = self.attention_metadata(attention_mask, causal=False, weights=weights)
        for block in self.encoder:
            x = block(x, metadata)  # (B, S, C)
        read: Tensor = self.encoder_norm(x)
        return read

    def decode(
        self,
        ids: Tensor,
        mask: Tensor,
        source: Tensor,
        source_mask: Tensor,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Logits (B, T, V) of the token after each id (B, T) of the target, given the source.

        The masks are True for the tokens of the target, (B, T), and of ``source``, (B, S).
        ``weights`` receives the attention weights of each block: of the target to itself,
        (B, H, T, T), then to the source, (B, H, T, S).
        """
        check_ids(self.config, ids, mask)
        check_rows(source_mask, "has no source: leave the row out")
        attention_mask = AttentionMask.from_padding(mask)
        x = self.embed(ids, attention_mask.query_positions)  # (B, T, C)
        metadata = self.attention_metadata(attention_mask, causal=True, weights=weights)
        hidden = additive_mask(source_mask[:, None, None, :], source)  # (B, 1, 1, S)
        source_metadata = AttentionMetadata(causal=False, bias=hidden, weights=weights)
        for block in self.decoder:
            x = block(x, metadata, None, source, source_metadata)  # (B, T, C)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits
