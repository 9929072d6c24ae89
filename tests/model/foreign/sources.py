"""Tiny models that transformers itself makes, of every architecture that Atlas imports."""

import copy
from pathlib import Path
from typing import Any

import torch
import transformers

PIECES, CONTEXT = 400, 64  # as many as the tokenizer of the tests
SHAPE = {
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "vocab_size": PIECES,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
GPT2_SHAPE = {
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": CONTEXT,
    "vocab_size": PIECES,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def rope(kind: str = "default", **settings: Any) -> dict[str, Any]:
    """RoPE with settings, which make a difference within the context."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 500.0, **settings}}


BEFORE = {"original_max_position_embeddings": 32}
LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, **BEFORE)
YARN = rope("yarn", factor=4.0, **BEFORE)
MODELS: dict[str, tuple[str, dict[str, Any]]] = {  # class, and its settings
    "llama": ("Llama", rope()),
    "llama-tied": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama-linear": ("Llama", rope("linear", factor=3.0)),
    "llama-llama3": ("Llama", LLAMA3 | {"tie_word_embeddings": True}),
    "llama-llama3-own": (
        "Llama",
        rope("llama3", factor=3.0, low_freq_factor=0.5, high_freq_factor=6.0, **BEFORE),
    ),
    "llama-yarn": ("Llama", YARN),
    "llama-attention_bias": ("Llama", {"attention_bias": True}),
    "llama-mlp_bias": ("Llama", {"mlp_bias": True}),
    "llama-head_dim": ("Llama", {"head_dim": 20}),
    "mistral": ("Mistral", {"sliding_window": 9, "head_dim": 16}),
    "mistral-long": ("Mistral", {"sliding_window": CONTEXT}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2-yarn": ("Qwen2", YARN),
    "qwen2-window": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3-yarn": ("Qwen3", {"head_dim": 16} | YARN),
    "olmo2": ("Olmo2", {}),
    "olmo2-linear": ("Olmo2", rope("linear", factor=2.0) | {"tie_word_embeddings": True}),
    "gemma": ("Gemma", {"head_dim": 32}),
    "starcoder2": ("Starcoder2", rope()),
    "starcoder2-plain": ("Starcoder2", {"use_bias": False, "sliding_window": 9}),
    "stablelm": ("StableLm", {"hidden_size": 64}),
    "stablelm-bias": ("StableLm", {"use_qkv_bias": True, "partial_rotary_factor": 0.5}),
    "stablelm-yarn": ("StableLm", YARN | {"partial_rotary_factor": 0.5}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5}),
    "smollm3-two": ("SmolLM3", {"no_rope_layers": [1, 0], "attention_bias": True} | YARN),
    "smollm3-yarn": ("SmolLM3", {"num_hidden_layers": 4} | YARN),
    "gpt2": ("GPT2", {}),
    "gpt2-untied": ("GPT2", {"n_inner": 56, "tie_word_embeddings": False}),
}


def make(name: str, **changes: Any) -> Any:
    """Make a model whose weights look trained, in eval mode."""
    kind, settings = MODELS[name]
    config = getattr(transformers, f"{kind}Config")
    shape = GPT2_SHAPE if kind == "GPT2" else SHAPE
    model_class = f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    model = getattr(transformers, model_class)(
        config(**copy.deepcopy(shape | settings | changes))  # transformers changes its dicts
    ).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 2:
                weight.copy_(0.12 * noise)
            else:
                weight.add_(0.2 * noise)
    return model


def save(name: str, folder: Path, **changes: Any) -> Any:
    """Write a model as transformers does, and return it."""
    model = make(name, **changes)
    model.save_pretrained(folder)
    return model
