"""The decoder: ids to logits.

One class covers the Llama shape (RoPE, RMSNorm, SwiGLU, grouped-query heads, QK-norm) and the
GPT-2 shape (learned positions, LayerNorm, GELU, tied head)::

    ids (B, T) -> embedding (+ positions) -> n_layer blocks -> norm -> head -> logits (B, T, V)
"""

import torch
from torch import Tensor, nn

from atlas.model.block import Block
from atlas.model.config import ModelConfig
from atlas.model.norm import make_norm
from atlas.model.positions import RotaryPositions


class Decoder(nn.Module):
    """A decoder-only transformer. Its weights are those of ``initialise`` or of a file."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions: nn.Embedding | None = None
        rotary: RotaryPositions | None = None
        if config.positions == "learned":
            self.positions = nn.Embedding(config.context_length, config.d_model)
        else:
            rotary = RotaryPositions(config.head_size, config.context_length, config.rope_theta)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config, rotary) for _ in range(config.n_layer))
        self.norm = make_norm(config)
        self.head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tied_head:
            self.head.weight = self.embedding.weight  # arXiv:1608.05859

    def forward(self, ids: Tensor) -> Tensor:
        """Logits (B, T, V) of the token after each of ``ids`` (B, T).

        Raises:
            ValueError: T is longer than the context.
        """
        length = ids.shape[1]
        if length > self.config.context_length:
            raise ValueError(f"{length} tokens, the context holds {self.config.context_length}")
        x = self.embedding(ids)  # (B, T, C)
        if self.positions is not None:
            x = x + self.positions(torch.arange(length, device=ids.device))  # (B, T, C)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x)  # (B, T, C)
        logits: Tensor = self.head(self.norm(x))  # (B, T, V)
        return logits

    def parameter_count(self) -> int:
        """Number of weights, a tied head counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def flops_per_token(self) -> int:
        """Floating point operations of a forward and backward pass, a token.

        Six for each weight that takes part in a matrix product, and the attention matrix
        over a full context (Chowdhery et al. 2022, arXiv:2204.02311, appendix B).
        """
        lookups = [self.embedding.weight] if not self.config.tied_head else []
        if self.positions is not None:
            lookups.append(self.positions.weight)
        weights = self.parameter_count() - sum(weight.numel() for weight in lookups)
        attention = 12 * self.config.n_layer * self.config.d_model * self.config.context_length
        return 6 * weights + attention
