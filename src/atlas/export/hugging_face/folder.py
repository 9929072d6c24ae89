"""Write a model as a folder that transformers loads: config, weights, tokenizer."""

from pathlib import Path
from typing import Any

from atlas.export.bundle import ModelBundle, StoredWeights
from atlas.export.hugging_face.tokenizer import fast_tokenizer, tokenizer_settings
from atlas.export.tensors import TensorConverter
from atlas.inference.sampling import DEFAULT_SAMPLING
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
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


def write_hugging_face(folder: Path, bundle: ModelBundle, kind: HuggingFaceClass) -> None:
    """Create a folder with the model, written for one of transformers' classes."""
    config, tokenizer = bundle.config, bundle.tokenizer
    folder.mkdir()
    stored = StoredWeights(bundle.folder)
    converter = TensorConverter.for_hugging_face(config, stored.shapes, kind)
    tensors = {name: recipe(stored.read) for name, recipe in converter.recipes()}
    write_weights(tensors, folder / WEIGHTS, FORMAT)
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
    return {
        "architectures": [kind.name],
        "model_type": kind.model_type,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_head,
        "use_cache": True,
        **(_gpt2_shape(config) if kind.model_type == "gpt2" else _rotary_shape(config, kind)),
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
    if kind.model_type == "starcoder2":
        shape |= {"norm_epsilon": config.norm_eps, "use_bias": config.bias}
        shape |= {"residual_dropout": 0.0, "embedding_dropout": 0.0, "sliding_window": None}
    elif kind.model_type == "stablelm":
        shape |= {"layer_norm_eps": config.norm_eps, "partial_rotary_factor": 1.0}
        shape |= {"use_qkv_bias": False, "hidden_dropout": 0.0}
    else:
        shape |= {"rms_norm_eps": config.norm_eps, "attention_bias": config.bias}
    if kind.model_type == "llama":
        shape["mlp_bias"] = config.bias or config.feed_forward not in GATES
    return shape
