"""config.json and generation_config.json of a Hugging Face folder."""

from typing import Any

from atlas.export.rope import scaling_of
from atlas.inference.sampling import USUAL
from atlas.model.config import ModelConfig
from atlas.model.layers import GATES
from atlas.params.runtime_support import HuggingFaceClass
from atlas.tokens.tokenizer import Tokenizer

ACTIVATIONS = {
    "swiglu": "silu",
    "geglu": "gelu_pytorch_tanh",
    "gelu": "gelu_pytorch_tanh",
    "silu": "silu",
    "relu": "relu",
    "relu2": "relu2",
}


def model_settings(
    config: ModelConfig, kind: HuggingFaceClass, tokenizer: Tokenizer
) -> dict[str, Any]:
    """config.json: the class, its hyperparameters, and the special ids."""
    shape = gpt2_shape(config) if kind.model_type == "gpt2" else rotary_shape(config, kind)
    return {
        "architectures": [kind.name],
        "model_type": kind.model_type,
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tied_head,
        "use_cache": True,
        **shape,
        **special_ids(tokenizer),
    }


def generation_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json: how `generate` samples unless it is told otherwise."""
    return {
        "do_sample": True,
        "temperature": USUAL.temperature,
        "top_k": USUAL.top_k,
        "top_p": USUAL.top_p,
        **special_ids(tokenizer),
    }


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Under the names that both files have for them."""
    return {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
    }


def gpt2_shape(config: ModelConfig) -> dict[str, Any]:
    """GPT-2 has names of its own, and no grouped heads."""
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


def rotary_shape(config: ModelConfig, kind: HuggingFaceClass) -> dict[str, Any]:
    """What Llama and its kin share, and what sets them apart."""
    scaling = scaling_of(config)
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
