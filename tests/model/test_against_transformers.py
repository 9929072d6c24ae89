"""Our logits against Hugging Face's models with the same weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.model.attention import KVCache
from atlas.model.foreign.tensors import BLOCK_NAMES, HUGGING_FACE_OWN
from atlas.model.masks import rotary_frequencies
from tests.model.family import T, V, decoder, ids_of
from tests.small import small_config

transformers = pytest.importorskip("transformers", reason="of the extra `dev`")
ROPE_INIT_FUNCTIONS = pytest.importorskip("transformers.modeling_rope_utils").ROPE_INIT_FUNCTIONS

NAMES = {module: name for module, (_, name) in BLOCK_NAMES.items()}
COMMON = {"vocab_size": V, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def llama_weights(model, layer=NAMES):
    """Rename our weights to those of Llama and its descendants."""
    renamed = {}
    for name, weight in model.state_dict().items():
        if name == "norm.bias":
            renamed["model.norm.bias"] = weight
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


class OurAngles(torch.nn.Module):
    """Our cosines and sines in transformers' form; its own are computed in float32."""

    def __init__(self, rotary):
        super().__init__()
        self.rotary = rotary

    def forward(self, _x, position_ids):
        cosine, sine = (each.squeeze(-2) for each in self.rotary.at(position_ids))
        first, second = sine.chunk(2, dim=-1)
        return cosine, torch.cat((-first, second), dim=-1)


def compare_in_float64(ours, theirs):
    """Compare models that were equal in float32 again; transformers' RMSNorm is float32 always."""
    ours, theirs = ours.double(), theirs.double()
    theirs.model.rotary_emb = OurAngles(ours.rotary)
    ids = ids_of(3, T)
    with torch.no_grad():
        assert (ours(ids) - theirs(input_ids=ids).logits).abs().max() < 1e-10


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


def rope(kind="default", **settings):
    return {"rope_type": kind, "rope_theta": 10_000.0, **settings}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"factor": 4.0, "beta_slow": 1.0, "beta_fast": 32.0}
SCALED = {
    "llama3": ({"rope_scaling": 8.0}, LLAMA3),
    "llama3 of other turns": (
        {"rope_scaling": 3.0, "rope_scaling_rotations": (0.1, 0.5)},
        {"factor": 3.0, "low_freq_factor": 0.1, "high_freq_factor": 0.5},
    ),
    "yarn": ({"rope_scaling": 4.0}, YARN),
    "yarn of other turns": (
        {"rope_scaling": 2.5, "rope_scaling_rotations": (0.5, 2.0)},
        {"factor": 2.5, "beta_slow": 0.5, "beta_fast": 2.0},
    ),
}


@pytest.mark.parametrize("name", SCALED)
def test_llama_with_scaled_rope_and_wide_heads(name):
    options, settings = SCALED[name]
    kind = name.split()[0]
    ours = decoder(**options, rope_scaling_kind=kind, rope_scaling_context=12, d_head=10)
    scaled = rope(kind, **settings, original_max_position_embeddings=12)
    config = transformers.LlamaConfig(**llama_shape(ours.config), rope_parameters=scaled)
    assert len(ours.state_dict()["blocks.0.attention.query.weight"]) == 40 != ours.config.d_model
    compare(ours, transformers.LlamaForCausalLM(config), llama_weights(ours))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from(["llama3", "yarn", "linear"]),
    st.integers(1, 32),
    st.sampled_from([64, 96, 128]),
    st.sampled_from([100.0, 10_000.0, 500_000.0, 5e6]),
    st.floats(1.1, 64),
    st.integers(7, 131_072),
    st.none() | st.tuples(st.floats(0.5, 2), st.floats(3, 64)),
)
def test_rope_frequencies(kind, pairs, head_size, theta, scaling, context, rotations):
    channels = 2 * pairs
    options = {"rope_scaling_context": context, "rope_scaling_rotations": rotations}
    ours, length = rotary_frequencies(
        small_config(
            d_head=head_size,
            rope_theta=theta,
            rope_scaling=scaling,
            rope_scaling_kind=kind,
            rotary_share=channels / head_size,
            **(options if kind != "linear" else {}),
        )
    )
    low, high = rotations or (1.0, 4.0 if kind == "llama3" else 32.0)
    config = transformers.LlamaConfig(
        head_dim=channels,
        rope_parameters={
            "rope_type": kind,
            "rope_theta": theta,
            "factor": scaling,
            "original_max_position_embeddings": context,
            **({"low_freq_factor": low, "high_freq_factor": high} if kind == "llama3" else {}),
            **({"beta_slow": low, "beta_fast": high} if kind == "yarn" else {}),
        },
    )
    theirs, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    assert torch.allclose(ours.float(), theirs, rtol=2e-6, atol=0)
    assert length == pytest.approx(factor, rel=1e-12)


def test_qwen2():
    ours = decoder(bias="qkv")
    config = transformers.Qwen2Config(**llama_shape(ours.config), rope_parameters=rope())
    del config.head_dim  # Qwen 2 has none
    compare(ours, transformers.Qwen2ForCausalLM(config), llama_weights(ours))


def test_qwen3_with_wide_heads():
    ours = decoder(qk_norm="head", d_head=16, tied_head=False)
    config = transformers.Qwen3Config(**llama_shape(ours.config), rope_parameters=rope())
    compare(ours, transformers.Qwen3ForCausalLM(config), llama_weights(ours))


@pytest.mark.parametrize("bias", ["norm", "qkv_norm"])
def test_stablelm_to_ten_digits(bias):
    ours = decoder(norm="layernorm", bias=bias, d_model=32, rotary_share=0.25)
    config = transformers.StableLmConfig(
        **llama_shape(ours.config),
        rope_parameters=rope(partial_rotary_factor=0.25),
        layer_norm_eps=ours.config.norm_eps,
        use_qkv_bias=bias == "qkv_norm",
    )
    theirs = transformers.StableLmForCausalLM(config)
    compare(ours, theirs, llama_weights(ours))
    compare_in_float64(ours, theirs)


def test_smollm3():
    ours = decoder(n_layer=5, no_rope_every=2)
    config = transformers.SmolLM3Config(
        **llama_shape(ours.config), rope_parameters=rope(), no_rope_layer_interval=2
    )
    assert config.no_rope_layers == [ours.config.rotates(block) for block in range(5)]
    compare(ours, transformers.SmolLM3ForCausalLM(config), llama_weights(ours))


def test_starcoder2_to_ten_digits():
    ours = decoder(norm="layernorm", feed_forward="gelu", bias=True, d_model=32)
    shape = llama_shape(ours.config)
    del shape["head_dim"]
    config = transformers.Starcoder2Config(
        **shape, rope_parameters=rope(), norm_epsilon=ours.config.norm_eps, use_bias=True
    )
    theirs = transformers.Starcoder2ForCausalLM(config)
    names = NAMES | HUGGING_FACE_OWN["starcoder2"]
    compare(ours, theirs, llama_weights(ours, names))
    compare_in_float64(ours, theirs)


@pytest.mark.parametrize("window", [2, 5, T - 1])
def test_a_sliding_window_is_that_of_mistral(window):
    ours = decoder(window=window)
    config = transformers.MistralConfig(
        **llama_shape(ours.config),
        rope_parameters=rope(),
        sliding_window=window,
        attn_implementation="eager",
    )
    theirs = transformers.MistralForCausalLM(config)
    compare(ours, theirs, llama_weights(ours))
    ids, cache, past = ids_of(2, T), KVCache.empty(ours.config, 2, ours.embedding.weight), None
    with torch.no_grad():
        for new in ids.split([9, *[1] * (T - 9)], dim=1):  # a prompt, then token by token
            result = theirs(input_ids=new, past_key_values=past, use_cache=True)
            past, logits = result.past_key_values, ours(new, cache=cache)
            assert (logits - result.logits).abs().max() < 1e-4
