"""Write a model as a folder that transformers loads: config, weights, tokenizer."""

from pathlib import Path
from typing import Any

from atlas.export.bundle import ModelBundle
from atlas.export.hugging_face.tensors import HuggingFaceConverter
from atlas.export.hugging_face.tokenizer import fast_tokenizer, tokenizer_settings
from atlas.inference.sampling import DEFAULT_SAMPLING
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.model.storage import WEIGHTS, write_weights
from atlas.params.runtime_support import HuggingFaceClass, rope_scaling
from atlas.pipeline.files import write_json
from atlas.tokens.tokenizer import MODEL_FILE, Tokenizer

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
    """Create a folder and write the model to it as one class of transformers.

    Raises:
        AtlasError: the disk is full.
    """
    config, tokenizer = bundle.config, bundle.tokenizer
    folder.mkdir()
    tensors = HuggingFaceConverter(config, kind, bundle.weights).tensors()
    write_weights(dict(tensors), folder / WEIGHTS, FORMAT)
    write_json(folder / "config.json", model_settings(config, kind, tokenizer))
    write_json(folder / "generation_config.json", generation_settings(tokenizer))
    settings = tokenizer_settings(tokenizer, config.context_length)
    write_json(folder / "tokenizer_config.json", settings)
    fast = fast_tokenizer(tokenizer, add_bos_token=config.add_bos_token)
    (folder / "tokenizer.json").write_text(fast.to_str(pretty=True), encoding="utf-8", newline="\n")
    (folder / MODEL_FILE).write_bytes(tokenizer.model)


def model_settings(
    config: ModelConfig, kind: HuggingFaceClass, tokenizer: Tokenizer
) -> dict[str, Any]:
    """config.json: the class, its hyperparameters and the special tokens."""
    shape = _gpt2_shape(config) if kind.model_type == "gpt2" else _rotary_shape(config, kind)
    return {
        "architectures": [kind.name],
        "model_type": kind.model_type,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_head,
        "use_cache": True,
        **shape,
        **_special_ids(tokenizer),
    }


def generation_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json: the sampling that ``generate`` uses by default."""
    return {
        "do_sample": True,
        "temperature": DEFAULT_SAMPLING.temperature,
        "top_k": DEFAULT_SAMPLING.top_k,
        "top_p": DEFAULT_SAMPLING.top_p,
        **_special_ids(tokenizer),
    }


def _special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    return {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
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
    """Hyperparameters that Llama and its relatives share, and those of the class alone."""
    scaling = rope_scaling(config.model_dump())
    linear = {"rope_type": "linear", "type": "linear", "factor": scaling}
    shape = {
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
    own: dict[str, Any]
    match kind.model_type:
        case "starcoder2":
            own = {"norm_epsilon": config.norm_eps, "use_bias": config.bias}
            own |= {"residual_dropout": 0.0, "embedding_dropout": 0.0, "sliding_window": None}
        case "stablelm":
            own = {"layer_norm_eps": config.norm_eps, "partial_rotary_factor": 1.0}
            own |= {"use_qkv_bias": False, "hidden_dropout": 0.0}
        case "llama":
            plain_as_gated = config.feed_forward not in GATES
            own = {"rms_norm_eps": config.norm_eps, "attention_bias": config.bias}
            own |= {"mlp_bias": config.bias or plain_as_gated}
        case _:
            own = {"rms_norm_eps": config.norm_eps, "attention_bias": config.bias}
    return shape | own
