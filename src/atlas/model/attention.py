r"""Causal self-attention with grouped key and value heads.

With n_kv_head = n_head it is multi-head attention (arXiv:1706.03762), with 1 multi-query
(arXiv:1911.02150), between them grouped-query (arXiv:2305.13245)::

    multi-head          grouped-query       multi-query
    Q Q Q Q             Q Q Q Q             Q Q Q Q
    | | | |             \ / \ /             \ | | /
    K K K K              K   K                 K
"""

import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.config import ModelConfig
from atlas.model.positions import RotaryPositions


class Attention(nn.Module):
    """Each token gathers values from itself and the tokens before it."""

    def __init__(self, config: ModelConfig, rotary: RotaryPositions | None) -> None:
        super().__init__()
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.rotary = rotary
        key_channels = config.n_kv_head * config.head_size
        self.query = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.key = nn.Linear(config.d_model, key_channels, bias=config.bias)
        self.value = nn.Linear(config.d_model, key_channels, bias=config.bias)
        self.output = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.query_norm: nn.Module | None = None
        self.key_norm: nn.Module | None = None
        if config.qk_norm:  # arXiv:2302.05442; one scale for all heads, as in Qwen3
            self.query_norm = nn.RMSNorm(config.head_size, eps=config.norm_eps)
            self.key_norm = nn.RMSNorm(config.head_size, eps=config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        query = self._heads(self.query(x), self.n_head)  # (B, H, T, D)
        key = self._heads(self.key(x), self.n_kv_head)  # (B, K, T, D)
        value = self._heads(self.value(x), self.n_kv_head)  # (B, K, T, D)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rotary is not None:
            query, key = self.rotary(query), self.rotary(key)
        queries_per_key = self.n_head // self.n_kv_head
        if queries_per_key > 1:
            key = key.repeat_interleave(queries_per_key, dim=1)  # (B, H, T, D)
            value = value.repeat_interleave(queries_per_key, dim=1)  # (B, H, T, D)
        mixed = F.scaled_dot_product_attention(
            query, key, value, dropout_p=self.dropout if self.training else 0.0, is_causal=True
        )  # (B, H, T, D)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, C)
        return output

    def _heads(self, x: Tensor, heads: int) -> Tensor:
        """(B, T, heads * D) to (B, heads, T, D)."""
        return x.view(*x.shape[:2], heads, self.head_size).transpose(1, 2)
