"""The keys and values of the tokens so far, so that a new token costs one token's work."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from atlas.model.config import ModelConfig


@dataclass
class LayerCache:
    """The keys and values of one block.

    Attributes:
        keys: (B, K, T, D), of which ``length`` are there.
        values: (B, K, T, D).
        length: tokens so far.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds those of new tokens (B, K, n, D); returns those of all."""
        end = self.length + key.shape[2]
        self.keys[:, :, self.length : end] = key
        self.values[:, :, self.length : end] = value
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """What a decoder remembers of a batch of texts, up to the length of its context.

    Attributes:
        layers: one for each block.
        mask: which of what came so far are tokens, (B, length).
        padded: whether some are not, and fill up a row.
    """

    def __init__(self, config: ModelConfig, batch: int, like: Tensor) -> None:
        """An empty one, of the type and on the device of ``like``."""
        shape = (batch, config.n_kv_head, config.context_length, config.head_size)
        # Not like.new_zeros: of weights that are shared out (FSDP2) that would be shared out too.
        empty = partial(torch.zeros, shape, dtype=like.dtype, device=like.device)
        self.layers = [LayerCache(empty(), empty()) for _ in range(config.n_layer)]
        self.mask = torch.ones(batch, 0, dtype=torch.bool, device=like.device)
        self.padded = False

    @property
    def length(self) -> int:
        """Tokens so far, and what fills up their rows."""
        return self.mask.shape[1]

    def remember(self, ids: Tensor, mask: Tensor | None) -> Tensor | None:
        """Adds new ids (B, T); returns which of all are tokens, (B, S), None if all are.

        Raises:
            ValueError: the cache is of another number of texts.
        """
        if len(ids) != len(self.mask):
            raise ValueError(f"{len(ids)} texts, and the cache was made for {len(self.mask)}")
        self.padded = self.padded or mask is not None
        new = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        self.mask = torch.cat((self.mask, new), dim=1)
        return self.mask if self.padded else None
