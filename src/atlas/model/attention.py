r"""Self-attention and cross-attention with grouped key and value heads, and the KV cache.

With n_kv_head = n_head it is multi-head attention (arXiv:1706.03762), with 1 multi-query
(arXiv:1911.02150), between them grouped-query (arXiv:2305.13245)::

    multi-head          grouped-query       multi-query
    Q Q Q Q             Q Q Q Q             Q Q Q Q
    | | | |             \ / \ /             \ | | /
    K K K K              K   K                 K

The cache keeps the keys and values of earlier tokens, so that only new tokens are computed. Each
row of a batch holds a text of its own length, filled from the first column; a token's column is its
position.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atlas.model.config import ModelConfig
from atlas.model.layers import make_qk_norms
from atlas.model.masks import AttentionMask, rotate


@dataclass
class LayerCache:
    """The keys and values of one block."""

    keys: Tensor  # (B, K, T, D)
    values: Tensor  # (B, K, T, D)
    columns: Tensor | None = None  # of the new tokens, (B, T); None if the same in every row
    end: int = 0  # first column that is free in every row

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add new keys and values (B, K, n, D); return those of all tokens."""
        for stored, new in ((self.keys, key), (self.values, value)):
            if self.columns is None:
                stored[:, :, self.end - new.shape[2] : self.end] = new
            else:
                rows = torch.arange(len(new), device=new.device)[:, None]
                stored[rows, :, self.columns] = new.transpose(1, 2)
        return self.keys[:, :, : self.end], self.values[:, :, : self.end]


class KVCache:
    """Keys and values of a batch of texts, up to the context length of the decoder."""

    def __init__(self, layers: Sequence[LayerCache], rows: int) -> None:
        self.layers = list(layers)  # one per block
        self.lengths = [0] * rows  # tokens in each row

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, like: Tensor) -> Self:
        """Make an empty cache with the dtype and device of ``like``."""
        shape = (batch, config.n_kv_head, config.context_length, config.head_size)
        # Not like.new_zeros: FSDP2 would shard the cache as it shards the weights.
        zeros = partial(torch.zeros, shape, dtype=like.dtype, device=like.device)
        return cls([LayerCache(zeros(), zeros()) for _ in range(config.n_layer)], batch)

    @property
    def longest(self) -> int:
        """Tokens in the longest row."""
        return max(self.lengths)

    def row(self, number: int) -> "KVCache":
        """Return an empty cache that uses the memory of one row."""
        this = slice(number, number + 1)
        return KVCache([LayerCache(each.keys[this], each.values[this]) for each in self.layers], 1)

    def reserve(self, ids: Tensor, mask: Tensor | None) -> AttentionMask:
        """Reserve space for new ids (B, T), which the blocks then fill; return their mask.

        ``mask`` (B, T) is False in the padding, which must be on the right.
        """
        if len(ids) != len(self.lengths):
            raise ValueError(f"{len(ids)} texts, but the cache has {len(self.lengths)} rows")
        before, new = self.lengths, ids.shape[1]
        counts = [new] * len(ids)
        if mask is not None:
            if (mask[:, 1:] & ~mask[:, :-1]).any():
                raise ValueError("with a cache, rows must be padded on the right")
            counts = mask.sum(dim=1).tolist()
        even = len(set(before)) == 1
        queries = torch.arange(before[0], before[0] + new, device=ids.device)  # (T,)
        if not even:
            starts = torch.tensor(before, device=ids.device)[:, None]  # (B, 1)
            queries = starts + torch.arange(new, device=ids.device)  # (B, T)
        end = max(before) + new
        for layer in self.layers:
            layer.columns, layer.end = (None if even else queries), end
        self.lengths = [start + count for start, count in zip(before, counts, strict=True)]
        return AttentionMask(queries, torch.arange(end, device=ids.device), queries)


@dataclass
class AttentionMetadata:
    """Inputs of attention that all blocks of a forward pass share.

    The list ``weights`` receives the attention weights of each block, (B, H, T, S). Without it, the
    fused kernel runs, which never stores them.
    """

    causal: bool  # each query sees itself and earlier keys; T = S, and ``bias`` is None
    bias: Tensor | None = None  # added to the scores, (B or 1, H or 1, T, S), -inf for hidden keys
    rotation: tuple[Tensor, Tensor] | None = None  # cosines and sines of RoPE, (B?, T, 1, R) each
    weights: list[Tensor] | None = None


class Attention(nn.Module):
    """Each token averages the values of the tokens it attends to.

    With ``rotates`` False, RoPE does not apply here (``no_rope_every``, arXiv:2501.18795).
    """

    def __init__(self, config: ModelConfig, *, rotates: bool = True) -> None:
        super().__init__()
        self.rotates = rotates
        self.n_head, self.n_kv_head = config.n_head, config.n_kv_head
        self.head_size = config.head_size
        self.dropout = config.dropout
        self.norms_heads = config.qk_norm == "head"
        self.query = nn.Linear(config.d_model, config.query_channels, bias=config.qkv_bias)
        self.key = nn.Linear(config.d_model, config.key_channels, bias=config.qkv_bias)
        self.value = nn.Linear(config.d_model, config.key_channels, bias=config.qkv_bias)
        self.output = nn.Linear(config.query_channels, config.d_model, bias=config.linear_bias)
        self.query_norm, self.key_norm = make_qk_norms(config)

    def forward(
        self,
        x: Tensor,
        metadata: AttentionMetadata,
        cache: LayerCache | None = None,
        source: Tensor | None = None,
    ) -> Tensor:
        """Map (B, T, C) to (B, T, C).

        ``x`` attends to ``source`` (B, S, C), by default to itself and to the earlier tokens in
        ``cache``.
        """
        source = x if source is None else source
        query = self._heads(self.query(x), self.query_norm)  # (B, T, H, D)
        key = self._heads(self.key(source), self.key_norm)  # (B, S, K, D)
        value = self._heads(self.value(source))  # (B, S, K, D)
        if metadata.rotation is not None and self.rotates:
            query, key = rotate(query, *metadata.rotation), rotate(key, *metadata.rotation)
        query, key, value = (each.transpose(1, 2) for each in (query, key, value))
        if cache is not None:
            key, value = cache.extend(key, value)
        dropout = self.dropout if self.training else 0.0
        if metadata.weights is None:
            mixed = F.scaled_dot_product_attention(
                query,
                key,
                value,
                attn_mask=metadata.bias,
                dropout_p=dropout,
                is_causal=metadata.causal,
                enable_gqa=self.n_head != self.n_kv_head,
            )  # (B, H, T, D)
        else:
            mixed, weights = attend_explicitly(query, key, value, metadata, dropout)
            metadata.weights.append(weights)
        output: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # (B, T, C)
        return output

    def _heads(self, x: Tensor, norm: nn.Module | None = None) -> Tensor:
        """Split (B, T, heads * D) into heads (B, T, heads, D), and apply QK-norm if set."""
        if norm is not None and not self.norms_heads:
            x = norm(x)
        x = x.view(*x.shape[:2], -1, self.head_size)
        return norm(x) if norm is not None and self.norms_heads else x


def attend_explicitly(
    query: Tensor, key: Tensor, value: Tensor, metadata: AttentionMetadata, dropout: float
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, line by line: the result (B, H, T, D), weights (B, H, T, S).

    Queries are (B, H, T, D), keys and values (B, K, S, D).
    """
    queries_per_key = query.shape[1] // key.shape[1]
    key = key.repeat_interleave(queries_per_key, dim=1)  # (B, H, S, D)
    value = value.repeat_interleave(queries_per_key, dim=1)  # (B, H, S, D)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])  # (B, H, T, S)
    if metadata.causal:
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1)  # (T, T)
        scores = scores.masked_fill(later, -torch.inf)
    elif metadata.bias is not None:
        scores = scores + metadata.bias
    weights = scores.softmax(dim=-1)
    mixed = F.dropout(weights, dropout) @ value  # (B, H, T, D)
    return mixed, weights
