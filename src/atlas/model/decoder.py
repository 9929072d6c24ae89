"""The decoder: predicts each token from the tokens before it.

One class covers the whole family, from the GPT-2 shape (learned positions, LayerNorm, GELU, tied
head) to the Llama shape (RoPE, RMSNorm, SwiGLU, grouped-query heads).

``Transformer`` holds what the decoder shares with the encoder-decoder: embedding, positions, head.
"""

from torch import Tensor, nn

from atlas.model.attention import AttentionMetadata, KVCache
from atlas.model.block import Block
from atlas.model.config import ModelConfig
from atlas.model.language_model import LanguageModel, check_ids
from atlas.model.layers import make_norm
from atlas.model.masks import (
    AttentionMask,
    RotaryPositions,
    additive_mask,
    alibi_slopes,
    sinusoidal_table,
)


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
                self.rotary = RotaryPositions(
                    config.head_size, config.context_length, config.rope_theta, config.rope_scaling
                )
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
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """Return logits (B, T, V): for each of ``ids`` (B, T), those of the token after it.

        With a cache, ``ids`` are the new tokens of each text, and padding must be on the right.
        ``weights`` receives the attention weights of each block, (B, H, T, S).
        """
        check_ids(self.config, ids, mask, cache.longest if cache is not None else 0)
        if cache is not None:
            attention_mask = cache.remember(ids, mask)
        elif mask is not None:
            attention_mask = AttentionMask.from_padding(mask)
        else:
            attention_mask = AttentionMask.without_padding(ids.shape[1], ids.device)
        x = self.embed(ids, attention_mask.query_positions)  # (B, T, C)
        metadata = self.attention_metadata(attention_mask, causal=True, weights=weights)
        for number, block in enumerate(self.blocks):
            x = block(x, metadata, cache.layers[number] if cache is not None else None)  # (B, T, C)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits
