"""The encoder-decoder: a question is read in both directions, then its answer is written.

    Max 3 7 1 =          the source, up to and with the separator
              = 7 .      the target, from the separator on

Both stand in the same row of ids, so the same batches train it as train a decoder.
"""

import torch
from torch import Tensor, nn

from atlas.model.attention import AttentionMetadata
from atlas.model.block import Block, CrossBlock
from atlas.model.config import ModelConfig
from atlas.model.decoder import Transformer
from atlas.model.language_model import check_ids, check_rows
from atlas.model.layers import make_norm
from atlas.model.masks import AttentionMask, additive_mask


class EncoderDecoder(Transformer):
    """A transformer after Vaswani et al. 2017 (arXiv:1706.03762).

    ``n_layer`` blocks read the source and as many write the target. Embedding and positions are
    those of both; positions of the target begin anew.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        if config.separator is None:
            raise ValueError("an encoder-decoder needs a separator between source and target")
        self.separator = config.separator
        self.encoder = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.encoder_norm = nn.Identity() if config.norm_position == "post" else make_norm(config)
        self.decoder = nn.ModuleList(CrossBlock(config) for _ in range(config.n_layer))

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of ``ids`` (B, T).

        Those after a token of the source, but for its last one, mean nothing.

        Raises:
            ValueError: what ``check_ids`` refuses; a row holds no separator.
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
        """Reads the source.

        Args:
            ids: (B, S).
            mask: which of them are of the source, (B, S).
            weights: receives the attention weights of each block, (B, H, S, S).

        Returns:
            (B, S, C).

        Raises:
            ValueError: what ``check_ids`` refuses.
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
        """Writes the target.

        Args:
            ids: (B, T).
            mask: which of them are of the target, (B, T).
            source: what ``encode`` made, (B, S, C).
            source_mask: which of it is the source, (B, S).
            weights: receives the attention weights of each block: of the target to itself,
                (B, H, T, T), then to the source, (B, H, T, S).

        Returns:
            Logits of the token after each of ``ids``, (B, T, V).

        Raises:
            ValueError: what ``check_ids`` refuses; a row has no source.
        """
        check_ids(self.config, ids, mask)
        check_rows(source_mask, "has no source: leave the row out")
        attention_mask = AttentionMask.from_padding(mask)
        x = self.embed(ids, attention_mask.query_positions)  # (B, T, C)
        metadata = self.attention_metadata(attention_mask, causal=True, weights=weights)
        hidden = additive_mask(source_mask[:, None, None, :], source)  # (B, 1, 1, S)
        source_metadata = AttentionMetadata(causal=False, bias=hidden, weights=weights)
        for block in self.decoder:
            x = block(x, metadata, source, source_metadata)  # (B, T, C)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits
