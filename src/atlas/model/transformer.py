"""Transformers: a decoder and an encoder-decoder, built from the same blocks.

The decoder predicts each token from the tokens before it. One class covers the whole family, from
the GPT-2 shape (learned positions, LayerNorm, GELU, tied head) to the Llama shape (RoPE, RMSNorm,
SwiGLU, grouped-query heads). The encoder-decoder reads a question in both directions, then writes
the answer::

    Max 3 7 1 =          the source, up to the separator
              = 7 .      the target, from the separator on

Both are in the same row of ids, so it trains on the same batches as a decoder.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from atlas.model.attention import Attention, AttentionMetadata, KVCache, LayerCache
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel, check_ids, check_rows
from atlas.model.layers import FeedForward, make_norm
from atlas.model.loss import head_loss
from atlas.model.masks import (
    AttentionMask,
    RotaryPositions,
    additive_mask,
    alibi_slopes,
    sinusoidal_table,
)


class Block(nn.Module):
    """A block of a decoder or an encoder; ``cross`` adds cross-attention to a source.

    ``norm_position`` is the place of the norm around each sublayer::

        pre        x + sublayer(norm(x))    GPT-2, Llama (arXiv:2002.04745)
        post       norm(x + sublayer(x))    the original (arXiv:1706.03762)
        reordered  x + norm(sublayer(x))    OLMo 2 (arXiv:2501.00656)

    """

    def __init__(self, config: ModelConfig, number: int = 0, *, cross: bool = False) -> None:
        super().__init__()
        self.norm_position = config.norm_position
        self.dropout = nn.Dropout(config.dropout)
        self.attention_norm = make_norm(config)
        self.attention = Attention(config, rotates=config.rotates(number))
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


class Transformer(LanguageModel):
    """Token embedding, positions and head.

    The path of a token::

        ids (B, T) -> embedding (+ positions) -> blocks -> norm -> head -> logits (B, T, V)

    Learned and sinusoidal positions are added to the embedding, RoPE rotates queries and keys in
    every block, and ALiBi adds to the scores there. Without positions, only the causal mask tells
    the order of the tokens (arXiv:2305.19466).
    """

    sinusoids: Tensor  # (T, C)
    slopes: Tensor  # (H,)

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions: nn.Embedding | None = None
        self.rotary: RotaryPositions | None = None
        match config.positions:
            case "learned":
                self.positions = nn.Embedding(config.context_length, config.d_model)
            case "sinusoidal":
                table = sinusoidal_table(config.context_length, config.d_model)
                self.register_buffer("sinusoids", table, persistent=False)
            case "rope":
                self.rotary = RotaryPositions(config)
            case "alibi":
                self.register_buffer("slopes", alibi_slopes(config.n_head), persistent=False)
        self.dropout = nn.Dropout(config.dropout)
        # Post-norm blocks end with a norm themselves.
        self.norm = nn.Identity() if config.norm_position == "post" else make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_head:
            self.head.weight = self.embedding.weight  # arXiv:1608.05859

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Embed ids (B, T) at positions (T,) or (B, T): the residual stream (B, T, C)."""
        x: Tensor = self.embedding(ids)
        if self.positions is not None:
            x = x + self.positions(positions)
        elif self.config.positions == "sinusoidal":
            x = x + self.sinusoids[positions]
        dropped: Tensor = self.dropout(x)
        return dropped

    def attention_metadata(
        self, mask: AttentionMask, *, causal: bool, weights: list[Tensor] | None = None
    ) -> AttentionMetadata:
        """Return the bias and rotation of self-attention, the same for every block.

        The fused kernel is fastest without a bias, so a plain causal mask is only a flag.
        """
        queries, keys = mask.query_positions.shape[-1], mask.key_positions.shape[-1]
        rotation = self.rotary.at(mask.query_positions) if self.rotary is not None else None
        same_rows = mask.is_token is None and mask.query_positions.dim() == 1
        unmasked = same_rows and not self.config.window and (queries in (1, keys) or not causal)
        if self.config.positions != "alibi" and unmasked:
            is_causal = causal if queries > 1 else False  # `and` gives torch.compile a SymBool
            return AttentionMetadata(causal=is_causal, rotation=rotation, weights=weights)
        visible = mask.visible(causal=causal, window=self.config.window)
        bias = additive_mask(visible, self.embedding.weight)
        if self.config.positions == "alibi":
            bias = bias + mask.alibi_bias(self.slopes)
        return AttentionMetadata(causal=False, bias=bias, rotation=rotation, weights=weights)


class Decoder(Transformer):
    """A decoder-only transformer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(Block(config, number) for number in range(config.n_layer))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        weights: list[Tensor] | None = None,
        targets: Tensor | None = None,
        begins: Tensor | None = None,
    ) -> Tensor:
        """Return logits (B, T, V): for each of ``ids`` (B, T), those of the token after it.

        With a cache, ``ids`` are the new tokens of each text, and padding must be on the right.
        ``weights`` receives the attention weights of each block, (B, H, T, S). With ``targets``
        (B, T), return the sum of their cross-entropies instead, without storing many logits. With
        ``begins`` (B, T), True where a document begins, each document of a row is computed as if it
        were alone.
        """
        check_ids(self.config, ids, mask, cache.longest if cache is not None else 0)
        if cache is not None:
            attention_mask = cache.reserve(ids, mask)
        elif mask is not None:
            attention_mask = AttentionMask.from_padding(mask)
        elif begins is not None:
            attention_mask = AttentionMask.within_documents(begins)
        else:
            attention_mask = AttentionMask.without_padding(ids.shape[1], ids.device)
        x = self.embed(ids, attention_mask.query_positions)  # (B, T, C)
        metadata = self.attention_metadata(attention_mask, causal=True, weights=weights)
        for number, block in enumerate(self.blocks):
            x = block(x, metadata, cache.layers[number] if cache is not None else None)  # (B, T, C)
        x = self.norm(x)
        if targets is not None:
            return head_loss(x, self.head.weight, targets)
        logits: Tensor = self.head(x)  # (B, T, V)
        return logits


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
        numbers = range(config.n_layer)
        self.encoder = nn.ModuleList(Block(config, number) for number in numbers)
        self.encoder_norm = nn.Identity() if config.norm_position == "post" else make_norm(config)
        self.decoder = nn.ModuleList(Block(config, number, cross=True) for number in numbers)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return logits (B, T, V): for each of ``ids`` (B, T), those of the token after it.

        Of those in the source, only the ones after its last token are meaningful.
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
        encoded: Tensor = self.encoder_norm(x)
        return encoded

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
        source_bias = additive_mask(source_mask[:, None, None, :], source)  # (B, 1, 1, S)
        source_metadata = AttentionMetadata(causal=False, bias=source_bias, weights=weights)
        for block in self.decoder:
            x = block(x, metadata, None, source, source_metadata)  # (B, T, C)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits
