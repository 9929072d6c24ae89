"""A decoder whose keys and values come in and go out, so that a program needs no memory.

Names and shapes are those that transformers' own ONNX exports have, which other tools know.
Legend: B batch, P tokens of the past, T new tokens, K key heads, D head size, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config

from atlas.model.attention import KVCache, LayerCache
from atlas.model.config import ModelConfig
from atlas.model.decoder import Decoder
from atlas.model.masks import Places

EXAMPLE = (2, 3, 4)  # B, P, T of what the program is traced with
BATCH, NEW, ALL, PAST = "batch", "new", "all", "past"  # B, T, P + T, P


class GivenLayer(LayerCache):
    """The keys and values of one block that were given, (B, K, P, D) each."""

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Adds those of new tokens (B, K, T, D); returns those of all."""
        self.keys = torch.cat((self.keys, key), dim=2)
        self.values = torch.cat((self.values, value), dim=2)
        return self.keys, self.values


class GivenCache(KVCache):
    """A cache of what was given instead of remembered.

    Attributes:
        layers: one for each block.
        mask: which of all are tokens, the new ones too, (B, P + T).
    """

    def __init__(self, layers: list[LayerCache], mask: Tensor) -> None:
        self.layers = layers
        self.mask = mask

    @property
    def longest(self) -> int:
        """P."""
        return self.layers[0].keys.shape[2]

    def remember(self, ids: Tensor, mask: Tensor | None) -> Places:  # noqa: ARG002
        """Where the new ones stand among all."""
        return Places.of_masked(self.mask, before=self.longest)


class CachedDecoder(nn.Module):
    """A decoder as a function: what it remembers of the past comes in, and goes out longer."""

    def __init__(self, model: Decoder) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, past_key_values: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        """Logits (B, T, V), then the keys and values of each block, (B, K, P + T, D) each.

        Args:
            input_ids: of new tokens, (B, T).
            attention_mask: 1 for a token, of the past and new, 0 for what fills up, (B, P + T).
            past_key_values: keys and values of each block in turn, (B, K, P, D) each.
        """
        pairs = zip(past_key_values[::2], past_key_values[1::2], strict=True)
        layers: list[LayerCache] = [GivenLayer(key, value) for key, value in pairs]
        cache = GivenCache(layers, attention_mask.bool())
        logits = self.model(input_ids, cache=cache)
        present = [each for layer in layers for each in (layer.keys, layer.values)]
        return logits, *present


def input_names(config: ModelConfig) -> list[str]:
    """Of a program, in its order."""
    return ["input_ids", "attention_mask", *past_names(config, "past_key_values")]


def output_names(config: ModelConfig) -> list[str]:
    """Of a program, in its order."""
    return ["logits", *past_names(config, "present")]


def past_names(config: ModelConfig, prefix: str) -> list[str]:
    """The names of keys and values, block by block."""
    return [
        f"{prefix}.{number}.{part}" for number in range(config.n_layer) for part in ("key", "value")
    ]


def empty_past(config: ModelConfig, batch: int = 1, length: int = 0) -> list[Tensor]:
    """Keys and values of a past of so many tokens; of none, to begin with."""
    shape = (batch, config.n_kv_head, length, config.head_size)
    return [torch.zeros(shape) for _ in range(2 * config.n_layer)]


def trace(model: Decoder) -> ExportedProgram:
    """The program of a decoder, for any batch, any past and any number of new tokens."""
    config = model.config
    batch, past, new = (min(size, config.context_length // 2) for size in EXAMPLE)
    example: tuple[Any, ...] = (
        torch.zeros(batch, new, dtype=torch.int64),
        torch.ones(batch, past + new, dtype=torch.int64),
        empty_past(config, batch, past),
    )
    longest = config.context_length
    texts = Dim(BATCH, min=1)
    shapes = (
        {0: texts, 1: Dim(NEW, min=1, max=longest)},
        {0: texts, 1: Dim(ALL, min=1, max=longest)},
        [{0: texts, 2: Dim(PAST, min=0, max=longest - 1)} for _ in example[2]],
    )
    # Else what is traced with 2 of something is taken to have never 0 or 1 of it.
    with _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(
            CachedDecoder(model).eval(),
            example,
            dynamic_shapes=shapes,
            prefer_deferred_runtime_asserts_over_guards=True,
        )
