"""Our logits against Hugging Face's models with the same weights."""

import pytest
import torch

from atlas.model.foreign.tensors import BLOCK_NAMES, HUGGING_FACE_OWN
from tests.model.family import T, V, decoder, ids_of

transformers = pytest.importorskip("transformers", reason="of the extra `dev`")

NAMES = {module: name for module, (_, name) in BLOCK_NAMES.items()}
COMMON = {"vocab_size": V, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def llama_weights(model, layer=NAMES):
    """Rename our weights to those of Llama and its descendants."""
    renamed = {}
    for name, weight in model.state_dict().items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            module, kind = rest.rsplit(".", 1)
            renamed[f"model.layers.{number}.{layer[module]}.{kind}"] = weight
    return renamed | {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.head.weight,
    }


def gpt2_weights(model):
    """Rename our weights to those of GPT-2, whose matrices are (in, out)."""
    state = model.state_dict()
    renamed = {
        "transformer.wte.weight": state["embedding.weight"],
        "transformer.wpe.weight": state["positions.weight"],
        "transformer.ln_f.weight": state["norm.weight"],
        "transformer.ln_f.bias": state["norm.bias"],
        "lm_head.weight": state["head.weight"],
    }
    for number in range(model.config.n_layer):
        ours, theirs = f"blocks.{number}", f"transformer.h.{number}"
        for kind in ("weight", "bias"):
            parts = [state[f"{ours}.attention.{p}.{kind}"] for p in ("query", "key", "value")]
            renamed[f"{theirs}.attn.c_attn.{kind}"] = torch.cat(parts).t()
            for norm, name in (("attention_norm", "ln_1"), ("feed_forward_norm", "ln_2")):
                renamed[f"{theirs}.{name}.{kind}"] = state[f"{ours}.{norm}.{kind}"]
            for part, name in (
                ("attention.output", "attn.c_proj"),
                ("feed_forward.up", "mlp.c_fc"),
                ("feed_forward.down", "mlp.c_proj"),
            ):
                renamed[f"{theirs}.{name}.{kind}"] = state[f"{ours}.{part}.{kind}"].t()
    return renamed


def compare(ours, theirs, weights):
    theirs.load_state_dict(weights, strict=True)
    ids = ids_of(3, T)
    with torch.no_grad():
        expected, logits = theirs.eval()(input_ids=ids).logits, ours(ids)
    assert expected.std() > 0.5  # logits near zero would agree with anything
    assert (logits - expected).abs().max() < 1e-4


@pytest.mark.parametrize("tied", [True, False])
def test_gpt2(tied):
    ours = decoder(
        positions="learned",
        norm="layernorm",
        feed_forward="gelu",
        bias=True,
        tied_head=tied,
        n_kv_head=4,
    )
    shape = ours.config
    config = transformers.GPT2Config(
        **COMMON,
        n_positions=T,
        n_embd=shape.d_model,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_inner=shape.d_ff,
        layer_norm_epsilon=shape.norm_eps,
        tie_word_embeddings=tied,
    )
    compare(ours, transformers.GPT2LMHeadModel(config), gpt2_weights(ours))


def llama_shape(shape):
    """Return the keyword arguments shared by the configs of Llama and its descendants."""
    return COMMON | {
        "hidden_size": shape.d_model,
        "intermediate_size": shape.d_ff,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_kv_head,
        "head_dim": shape.head_size,
        "max_position_embeddings": T,
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": shape.tied_head,
    }


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize("scaling", [1.0, 4.0])
def test_llama(n_kv_head, scaling):
    ours = decoder(n_kv_head=n_kv_head, rope_scaling=scaling, rope_theta=500.0, tied_head=False)
    rope = {"rope_type": "linear", "factor": scaling, "rope_theta": 500.0}
    config = transformers.LlamaConfig(**llama_shape(ours.config), rope_parameters=rope)
    compare(ours, transformers.LlamaForCausalLM(config), llama_weights(ours))


@pytest.mark.parametrize("n_kv_head", [2, 4])
def test_qwen3(n_kv_head):
    ours = decoder(n_kv_head=n_kv_head, qk_norm="head")
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    config = transformers.Qwen3Config(**llama_shape(ours.config), rope_parameters=rope)
    compare(ours, transformers.Qwen3ForCausalLM(config), llama_weights(ours))


def test_olmo2():
    ours = decoder(norm_position="reordered", qk_norm="all")
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    config = transformers.Olmo2Config(**llama_shape(ours.config), rope_parameters=rope)
    weights = llama_weights(ours, NAMES | HUGGING_FACE_OWN["olmo2"])
    compare(ours, transformers.Olmo2ForCausalLM(config), weights)


def test_a_sliding_window_matches_mistral():
    ours = decoder(window=5)
    rope = {"rope_type": "default", "rope_theta": 10_000.0}
    config = transformers.MistralConfig(
        **llama_shape(ours.config),
        rope_parameters=rope,
        sliding_window=5,
        attn_implementation="eager",
    )
    compare(ours, transformers.MistralForCausalLM(config), llama_weights(ours))
