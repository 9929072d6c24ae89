"""The keys and values of the tokens so far, so that a new token costs one token's work.

Each row of a batch is a text of its own length: a row is filled from its first column on, and the
column of a token is its position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
from torch import Tensor

from atlas.model.config import ModelConfig
from atlas.model.visibility import Places


@dataclass
class LayerCache:
    """The keys and values of one block.

    Attributes:
        keys: (B, K, T, D).
        values: (B, K, T, D).
        columns: where new ones go, (T,) or (B, T).
        end: the first column that no row has come to.
    """

    keys: Tensor
    values: Tensor
    columns: Tensor | None = None
    end: int = 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds those of new tokens (B, K, n, D); returns those of all."""
        for all_of_them, new in ((self.keys, key), (self.values, value)):
            if self.columns is None:
                all_of_them[:, :, self.end - new.shape[2] : self.end] = new
            else:
                rows = torch.arange(len(new), device=new.device)[:, None]
                all_of_them[rows, :, self.columns] = new.transpose(1, 2)
        return self.keys[:, :, : self.end], self.values[:, :, : self.end]


class KVCache:
    """What a decoder remembers of a batch of texts, up to the length of its context.

    Attributes:
        layers: one for each block.
        lengths: tokens of each row so far.
    """

    def __init__(self, layers: Sequence[LayerCache], rows: int) -> None:
        self.layers = list(layers)
        self.lengths = [0] * rows

    @classmethod
    def empty(cls, config: ModelConfig, batch: int, like: Tensor) -> Self:
        """One of so many texts, of the type and on the device of ``like``."""
        shape = (batch, config.n_kv_head, config.context_length, config.head_size)
        # Not like.new_zeros: of weights that are shared out (FSDP2) that would be shared out too.
        zeros = partial(torch.zeros, shape, dtype=like.dtype, device=like.device)
        return cls([LayerCache(zeros(), zeros()) for _ in range(config.n_layer)], batch)

    @property
    def longest(self) -> int:
        """Tokens of the row that has most."""
        return max(self.lengths)

    def row(self, number: int) -> "KVCache":
        """One row, begun anew; it shares the memory of this one, not its lengths."""
        this = slice(number, number + 1)
        return KVCache([LayerCache(each.keys[this], each.values[this]) for each in self.layers], 1)

    def remember(self, ids: Tensor, mask: Tensor | None) -> Places:
        """Makes room for new ids (B, T), which the blocks then fill; says where they stand.

        Args:
            ids: new tokens of each row.
            mask: which of them are tokens, (B, T), all but some on the right; None if all are.

        Raises:
            ValueError: the cache is of another number of texts, or a row is filled up elsewhere.
        """
        if len(ids) != len(self.lengths):
            raise ValueError(f"{len(ids)} texts, and the cache was made for {len(self.lengths)}")
        before, new = self.lengths, ids.shape[1]
        counts = _counts(mask) if mask is not None else [new] * len(ids)
        even = len(set(before)) == 1
        queries = torch.arange(before[0], before[0] + new, device=ids.device)  # (T,)
        if not even:
            starts = torch.tensor(before, device=ids.device)[:, None]  # (B, 1)
            queries = starts + torch.arange(new, device=ids.device)  # (B, T)
        end = max(before) + new
        for layer in self.layers:
            layer.columns, layer.end = (None if even else queries), end
        self.lengths = [start + count for start, count in zip(before, counts, strict=True)]
        return Places(queries, torch.arange(end, device=ids.device), queries)


def _counts(mask: Tensor) -> list[int]:
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("a cache remembers rows that are filled up on the right alone")
    counts: list[int] = mask.sum(dim=1).tolist()
    return counts
