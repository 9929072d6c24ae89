"""Write a model as a folder that transformers loads: config, weights, tokenizer.

Legend: C d_model, H heads, K key heads, D head size, F feed-forward width.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atlas.export.bundle import ModelBundle, StoredWeights
from atlas.export.hugging_face.tokenizer import fast_tokenizer, tokenizer_settings
from atlas.inference.sampling import DEFAULT_SAMPLING
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.masks import sinusoidal_table
from atlas.model.storage import WEIGHTS, write_weights
from atlas.params.runtime_support import HuggingFaceClass, rope_scaling
from atlas.pipeline.files import write_json
from atlas.tokens.tokenizer import MODEL_FILE

FORMAT = {"format": "pt"}  # transformers refuses a safetensors file without this metadata
ACTIVATIONS = {
    "swiglu": "silu",
    "geglu": "gelu_pytorch_tanh",
    "gelu": "gelu_pytorch_tanh",
    "silu": "silu",
    "relu": "relu",
    "relu2": "relu2",
}
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


def write_hugging_face(folder: Path, bundle: ModelBundle, kind: HuggingFaceClass) -> None:
    """Create a folder with the model, written for one of transformers' classes."""
    config, tokenizer = bundle.config, bundle.tokenizer
    folder.mkdir()
    tensors = HuggingFaceConverter(config, kind, StoredWeights(bundle.folder)).tensors()
    write_weights(dict(tensors), folder / WEIGHTS, FORMAT)
    special = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
    }
    write_json(folder / "config.json", model_settings(config, kind) | special)
    sampling = {name: getattr(DEFAULT_SAMPLING, name) for name in ("temperature", "top_k", "top_p")}
    write_json(folder / "generation_config.json", {"do_sample": True, **sampling, **special})
    settings = tokenizer_settings(tokenizer, config.context_length)
    write_json(folder / "tokenizer_config.json", settings)
    fast = fast_tokenizer(tokenizer, add_bos_token=config.add_bos_token)
    (folder / "tokenizer.json").write_text(fast.to_str(pretty=True), encoding="utf-8", newline="\n")
    (folder / MODEL_FILE).write_bytes(tokenizer.model)


def model_settings(config: ModelConfig, kind: HuggingFaceClass) -> dict[str, Any]:
    """config.json: the class and its hyperparameters."""
    shape = _gpt2_shape(config) if kind.model_type == "gpt2" else _rotary_shape(config, kind)
    return {
        "architectures": [kind.name],
        "model_type": kind.model_type,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_head,
        "use_cache": True,
        **shape,
    }


def _gpt2_shape(config: ModelConfig) -> dict[str, Any]:
    """Hyperparameters under GPT-2's own names; it has no grouped key heads."""
    return {
        "n_positions": config.context_length,
        "n_embd": config.d_model,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.d_ff,
        "activation_function": ACTIVATIONS[config.feed_forward],
        "layer_norm_epsilon": config.norm_eps,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }


def _rotary_shape(config: ModelConfig, kind: HuggingFaceClass) -> dict[str, Any]:
    """Hyperparameters that Llama-like classes share, and those specific to the class."""
    scaling = rope_scaling(config.model_dump())
    linear = {"rope_type": "linear", "type": "linear", "factor": scaling}
    shape: dict[str, Any] = {
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.head_size,
        "max_position_embeddings": config.context_length,
        "hidden_act": ACTIVATIONS[config.feed_forward],
        "rope_theta": config.rope_theta,
        "rope_scaling": linear if scaling != 1 else None,
        "attention_dropout": 0.0,
    }
    match kind.model_type:
        case "starcoder2":
            shape |= {"norm_epsilon": config.norm_eps, "use_bias": config.bias}
            shape |= {"residual_dropout": 0.0, "embedding_dropout": 0.0, "sliding_window": None}
        case "stablelm":
            shape |= {"layer_norm_eps": config.norm_eps, "partial_rotary_factor": 1.0}
            shape |= {"use_qkv_bias": False, "hidden_dropout": 0.0}
        case _:
            shape |= {"rms_norm_eps": config.norm_eps, "attention_bias": config.bias}
    if kind.model_type == "llama":
        shape["mlp_bias"] = config.bias or config.feed_forward not in GATES
    return shape


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
        """Weight and bias of a module; zeros if the class needs a bias that the model lacks."""
        shapes = self._weights.shapes
        for kind in ("weight", "bias"):
            name, stored = f"{theirs}.{kind}", f"{ours}.{kind}"
            if stored in shapes:
                values = self._weights.read(stored)
                transposed = self._gpt2 and values.dim() == 2 and ours not in self._names
                yield name, values.T.contiguous() if transposed else values
            elif kind == "bias" and f"{ours}.weight" in shapes and self._needs_bias(ours):
                yield name, torch.zeros(shapes[f"{ours}.weight"][:1])

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
        """Stack queries, keys and values, (3C, C) or (3C,).

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
