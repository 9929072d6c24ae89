"""Convert Atlas's weights to the tensors that a class of transformers expects.

Legend: C d_model, H heads, K key heads, D head size, F feed-forward width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from atlas.export.bundle import StoredWeights
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.masks import sinusoidal_table
from atlas.params.runtime_support import HuggingFaceClass

NAMES = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
BLOCK_NAMES = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "feed_forward_norm": "post_attention_layernorm",
    "feed_forward.gate": "mlp.gate_proj",
    "feed_forward.up": "mlp.up_proj",
    "feed_forward.down": "mlp.down_proj",
}
OWN_BLOCK_NAMES = {
    "olmo2": {
        "attention_norm": "post_attention_layernorm",
        "feed_forward_norm": "post_feedforward_layernorm",
    },
    "starcoder2": {"feed_forward.up": "mlp.c_fc", "feed_forward.down": "mlp.c_proj"},
    "gpt2": {
        "attention_norm": "ln_1",
        "attention.output": "attn.c_proj",
        "feed_forward_norm": "ln_2",
        "feed_forward.up": "mlp.c_fc",
        "feed_forward.down": "mlp.c_proj",
    },
}
GPT2_NAMES = {"embedding": "transformer.wte", "norm": "transformer.ln_f", "head": "lm_head"}
QKV = ("query", "key", "value")
NORMS = ("norm", "attention_norm", "feed_forward_norm")
NamedTensors = Iterator[tuple[str, Tensor]]


class HuggingFaceConverter:
    """Converts a model to one class of transformers."""

    def __init__(self, config: ModelConfig, kind: HuggingFaceClass, weights: StoredWeights) -> None:
        self._config, self._weights = config, weights
        self._gpt2 = kind.model_type == "gpt2"
        self._names = GPT2_NAMES if self._gpt2 else NAMES
        self._layers = "transformer.h" if self._gpt2 else "model.layers"
        self._plain_as_gated = not kind.plain and config.feed_forward not in GATES
        self._block_names = BLOCK_NAMES | OWN_BLOCK_NAMES.get(kind.model_type, {})
        if self._plain_as_gated:
            self._block_names |= {"feed_forward.up": "mlp.gate_proj"}

    def tensors(self) -> NamedTensors:
        """All tensors by name, contiguous, in float32."""
        for ours, theirs in self._names.items():
            yield from self._module(ours, theirs)
        if self._gpt2:
            yield "transformer.wpe.weight", self._positions()
        for number in range(self._config.n_layer):
            yield from self._block(f"blocks.{number}", f"{self._layers}.{number}")

    def _block(self, block: str, layer: str) -> NamedTensors:
        for ours, theirs in self._block_names.items():
            if not (self._gpt2 and ours.removeprefix("attention.") in QKV):
                yield from self._module(f"{block}.{ours}", f"{layer}.{theirs}")
        if self._gpt2:
            yield f"{layer}.attn.c_attn.weight", self._fused_qkv(block, "weight").T.contiguous()
            yield f"{layer}.attn.c_attn.bias", self._fused_qkv(block, "bias")
        if self._plain_as_gated:  # activation(gate) * 1 is the activation
            f, c = self._config.d_ff, self._config.d_model
            yield f"{layer}.mlp.up_proj.weight", torch.zeros(f, c)
            yield f"{layer}.mlp.up_proj.bias", torch.ones(f)

    def _module(self, ours: str, theirs: str) -> NamedTensors:
        """Weight and bias of a module, where the model has it; a required bias may be zeros."""
        weight, bias = f"{ours}.weight", f"{ours}.bias"
        if weight not in self._weights.shapes:
            return
        values = self._weights.read(weight)
        transposed = self._gpt2 and values.dim() == 2 and ours not in self._names
        yield f"{theirs}.weight", values.T.contiguous() if transposed else values
        if bias in self._weights.shapes:
            yield f"{theirs}.bias", self._weights.read(bias)
        elif self._needs_bias(ours):
            yield f"{theirs}.bias", torch.zeros(len(values))

    def _needs_bias(self, ours: str) -> bool:
        if ours in ("embedding", "head") or ours.endswith(("query_norm", "key_norm")):
            return False
        if ours.endswith(NORMS):
            return self._config.norm == "layernorm"
        return self._gpt2 or (self._plain_as_gated and ".feed_forward." in ours)

    def _positions(self) -> Tensor:
        """GPT-2's position table (T, C); zeros for a model without positions."""
        shape = (self._config.context_length, self._config.d_model)
        match self._config.positions:
            case "learned":
                return self._weights.read("positions.weight")
            case "sinusoidal":
                return sinusoidal_table(*shape)
        return torch.zeros(shape)

    def _fused_qkv(self, block: str, part: str) -> Tensor:
        """Queries, keys and values stacked, (3C, C) or (3C,).

        GPT-2 has as many key heads as query heads, so each key head is repeated.
        """
        config = self._config
        stack = []
        for name in QKV:
            stored = f"{block}.attention.{name}.{part}"
            if stored in self._weights.shapes:
                values = self._weights.read(stored)
            else:
                values = torch.zeros(config.d_model if name == "query" else config.key_channels)
            heads = values.reshape(-1, config.head_size, *values.shape[1:])  # (K, D, ...)
            repeats = 1 if name == "query" else config.n_head // config.n_kv_head
            stack.append(heads.repeat_interleave(repeats, dim=0).flatten(0, 1))
        return torch.cat(stack)
