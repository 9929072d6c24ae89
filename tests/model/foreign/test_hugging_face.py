"""Folders of Hugging Face: what is refused, and by which name."""

import json
import math
import re

import pytest
import safetensors.torch
import torch
import transformers
from transformers import AutoConfig

from atlas.errors import AtlasError
from atlas.model.foreign.hugging_face import DEFAULTS, open_folder
from atlas.params.runtime_support import CLASSES
from tests.model.foreign.sources import MODELS, PIECES, save

FAMILIES = [row.model_type for row in CLASSES]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One model of each architecture, as transformers writes it."""
    folder = tmp_path_factory.mktemp("originals")
    for name in FAMILIES:
        save(name, folder / name)
    return folder


@pytest.fixture
def change(originals, tmp_path):
    """Return a function that copies a model with other keys in config.json."""

    def changed(name, **keys):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file in (originals / name).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        values = json.loads((folder / "config.json").read_text())
        values = {key: value for key, value in (values | keys).items() if value != "missing"}
        (folder / "config.json").write_text(json.dumps(values))
        return folder

    return changed


def refusal(folder):
    with pytest.raises(AtlasError) as error:
        open_folder(folder)
    message = str(error.value)
    assert "\n" not in message
    assert str(folder) in message
    return message.replace(f"{folder}/", "").replace(str(folder), "folder")


ROPE = {"rope_theta": 500.0}
ALTERNATING = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
ALTERNATING |= {"layer_types": None}
REFUSED = [  # a key that asks for something else than our models compute
    ("llama", {"hidden_act": "gelu"}, "hidden_act"),
    ("llama", {"hidden_act": "relu"}, "hidden_act"),
    ("llama", {"hidden_act": ["silu"]}, "hidden_act"),
    ("llama", {"pretraining_tp": 2}, "pretraining_tp"),
    ("llama", {"logit_scale": 0.5}, "logit_scale"),
    ("llama", {"embedding_multiplier": 12.0}, "embedding_multiplier"),
    ("llama", {"num_local_experts": 8}, "num_local_experts"),
    ("llama", {"clip_qkv": 8.0}, "clip_qkv"),
    ("llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("llama", {"sliding_window": 8}, "sliding_window"),
    ("llama", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("llama", {"layer_types": ["full_attention", "linear_attention"]}, "layer_types"),
    ("llama", {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    ("llama", {"auto_map": {"AutoConfig": "a.B"}}, "auto_map"),
    ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    ("llama", {"architectures": ["MixtralForCausalLM"]}, "architectures"),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type"),
    ("llama", {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope_type"),
    ("llama", {"rope_parameters": None, "rope_scaling": {"type": "su", "factor": 2.0}}, "type"),
    ("llama", {"rope_parameters": {"full_attention": ROPE}}, "rope_parameters"),
    ("llama", {"rope_parameters": ROPE | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
    ("llama", {"rope_parameters": ROPE | {"mrope_section": [2, 2]}}, "mrope_section"),
    ("llama", {"rope_parameters": {"rope_type": "linear"} | ROPE}, "factor"),
    ("llama", {"rope_parameters": {"partial_rotary_factor": math.inf}}, "partial_rotary_factor"),
    ("llama", {"hidden_size": None}, "hidden_size"),
    ("llama", {"hidden_size": "48"}, "hidden_size"),
    ("llama", {"num_hidden_layers": 2.5}, "num_hidden_layers"),
    ("llama", {"rms_norm_eps": -1e-6}, "rms_norm_eps"),
    ("llama", {"num_key_value_heads": 3}, "num_key_value_heads"),
    ("llama", {"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ("mistral", {"sliding_window": "8"}, "sliding_window"),
    ("mistral", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
    ("qwen2", ALTERNATING, "sliding_window"),
    ("qwen2", {"max_window_layers": "1"}, "max_window_layers"),
    ("qwen3", {"attention_bias": True}, "attention_bias"),
    ("qwen3", {"num_experts": 4}, "num_experts"),
    ("olmo2", {"attention_bias": True}, "attention_bias"),
    ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("gemma", {"hidden_activation": "silu_2"}, "hidden_activation"),
    ("gemma", {"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
    ("gemma", {"query_pre_attn_scalar": 256}, "query_pre_attn_scalar"),
    ("starcoder2", {"hidden_act": "gelu"}, "hidden_act"),
    ("stablelm", {"use_parallel_residual": True}, "use_parallel_residual"),
    ("stablelm", {"qk_layernorm": True}, "qk_layernorm"),
    ("smollm3", {"no_rope_layers": [0, 0, 1, 1, 0]}, "no_rope_layers"),
    ("smollm3", {"no_rope_layers": 4}, "no_rope_layers"),
    ("smollm3", ALTERNATING, "sliding_window"),
    ("gpt2", {"activation_function": "gelu"}, "activation_function"),
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
    ("gpt2", {"n_head": 5}, "n_head"),
    ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights"),
    ("gpt2", {"add_cross_attention": True}, "add_cross_attention"),
]  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16} | ROPE
REFUSED += [
    ("qwen2", {"rope_parameters": YARN | {key: value}}, key)
    for key, value in {"attention_factor": 1.0, "truncate": False}.items()
]
BEFORE = "original_max_position_embeddings"
REFUSED += [("qwen2", {"rope_parameters": YARN | {BEFORE: value}}, BEFORE) for value in (0, "16")]
REFUSED += [
    ("qwen2", {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.7}}, "mscale_all_dim")
]


@pytest.mark.parametrize(("name", "keys", "named"), REFUSED)
def test_a_key_that_asks_for_something_else_is_refused_by_name(change, name, keys, named):
    message = refusal(change(name, **keys))
    assert re.match(rf"config\.json: (\w+\.)?{named}\b", message), message
    value = keys[next(iter(keys))]
    if isinstance(value, int | float | str) and not isinstance(value, bool) and len(keys) == 1:
        assert str(value) in message


HARMLESS = {
    "attention_dropout": 0.1,
    "torch_dtype": "bfloat16",
    "_name_or_path": "somewhere/else",
    "transformers.js_config": {"dtype": "q4"},
    "use_cache": False,
    "unsloth_version": "2025.1",
    "num_experts": 0,
    "logit_scale": 1.0,
    "sliding_window": None,
    "rope_interleaved": False,
    "quantization_config": None,
    "id2label": {"0": "a"},
}


@pytest.mark.parametrize("name", ["llama", "smollm3", "olmo2"])
def test_harmless_keys_are_ignored_and_unknown_ones_are_named(change, originals, name):
    weights = open_folder(change(name, **HARMLESS, favourite_colour="blue"))
    assert weights.ignored == ("favourite_colour",)
    assert weights.params == open_folder(originals / name).params


@pytest.mark.parametrize("row", CLASSES, ids=FAMILIES)
def test_missing_keys_have_the_values_that_transformers_takes(row):
    theirs = AutoConfig.for_model(row.model_type)
    for key, value in (DEFAULTS[""] | DEFAULTS[row.model_type]).items():
        if key == "rope_theta":
            theta = getattr(theirs, "rope_parameters", None) or {"rope_theta": value}
            assert theta["rope_theta"] == value
        elif row.model_type == "gpt2" and key in DEFAULTS[""]:
            continue  # GPT-2 has names of its own
        elif hasattr(theirs, key):
            assert getattr(theirs, key) == value, key
        else:
            assert key in DEFAULTS[""], key  # a key of other classes


@pytest.mark.parametrize("name", FAMILIES)
def test_a_config_of_few_keys_is_read_as_transformers_reads_it(change, originals, name):
    """Configs written by hand, or by old versions, lack what transformers takes for granted."""
    kept = {"n_embd", "n_layer", "n_head", "n_positions", "hidden_size", "intermediate_size"}
    kept |= {"num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"}
    kept |= {"max_position_embeddings", "model_type", "tie_word_embeddings", "vocab_size"}
    kept |= {"pad_token_id"}
    values = json.loads((originals / name / "config.json").read_text())
    folder = change(name, **dict.fromkeys(values.keys() - kept, "missing"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval().config
    params = open_folder(folder).params
    theta = (getattr(theirs, "rope_parameters", None) or {}).get("rope_theta", 10_000.0)
    assert params.rope_theta == theta
    names = ("rms_norm_eps", "layer_norm_eps", "norm_epsilon", "layer_norm_epsilon")
    assert params.norm_eps == next(getattr(theirs, key) for key in names if hasattr(theirs, key))


def test_the_old_names_of_rope_are_read(change):
    scaling = {"type": "linear", "factor": 2.0}
    folder = change("llama", rope_parameters="missing", rope_theta=123.0, rope_scaling=scaling)
    params = open_folder(folder).params
    assert (params.rope_theta, params.rope_scaling) == (123.0, 2.0)


def rewrite(folder, changes):
    """Replace tensors of a folder; None removes one."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path) | changes
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    safetensors.torch.save_file(kept, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("name", "tensors", "message"),
    [
        (
            "llama",
            {"model.layers.1.self_attn.q_proj.weight": None},
            r"folder: tensor model\.layers\.1\.self_attn\.q_proj\.weight \(48, 48\) is missing",
        ),
        ("llama", {"lm_head.weight": None}, r"tensor lm_head\.weight \(400, 48\) is missing"),
        ("llama", {"model.norm.weight": None}, r"tensor model\.norm\.weight \(48,\) is missing"),
        (
            "qwen2",
            {"model.layers.0.self_attn.k_proj.bias": None},
            r"tensor model\.layers\.0\.self_attn\.k_proj\.bias \(24,\) is missing",
        ),
        (
            "qwen3",
            {"model.layers.0.mlp.up_proj.weight": torch.zeros(81, 48)},
            r"up_proj\.weight has shape \(81, 48\), and the config describes \(80, 48\)",
        ),
        (
            "gpt2",
            {"transformer.h.0.attn.c_attn.weight": torch.zeros(144, 48)},
            r"c_attn\.weight has shape \(144, 48\), and the config describes \(48, 144\)",
        ),
        (
            "olmo2",
            {"model.layers.0.mlp.experts.0.w1": torch.zeros(3, 4)},
            r"tensor model\.layers\.0\.mlp\.experts\.0\.w1 \(3, 4\) is not part of the model",
        ),
        (
            "llama",
            {"model.layers.0.self_attn.q_proj.bias": torch.zeros(48)},
            r"q_proj\.bias \(48,\) is not part of the model",
        ),
        ("gemma", {"lm_head.weight": torch.zeros(400, 48)}, "tie_word_embeddings is true, but"),
        ("llama", {"model.embed_tokens.weight": torch.zeros(())}, r"tokens\.weight has shape"),
    ],
)  # fmt: skip
def test_missing_wrong_and_unknown_tensors_are_named(change, name, tensors, message):
    folder = change(name)
    rewrite(folder, tensors)
    assert re.search(message, refusal(folder)), refusal(folder)


@pytest.mark.parametrize(
    "keys", [{"num_hidden_layers": 9_000_000}, {"hidden_size": 1 << 23, "head_dim": 12}]
)
def test_a_config_of_far_more_weights_than_there_are_is_refused_at_once(change, keys):
    assert "folder: the config describes" in refusal(change("llama", **keys))


def test_buffers_of_old_versions_and_a_stored_copy_of_the_head_are_ignored(change):
    folder = change("gpt2")
    embedding = safetensors.torch.load_file(folder / "model.safetensors")["transformer.wte.weight"]
    mask = torch.ones(1, 1, 64, 64, dtype=torch.uint8)
    rewrite(folder, {"transformer.h.0.attn.bias": mask, "lm_head.weight": embedding.clone()})
    assert "head.weight" not in dict(open_folder(folder).tensors(PIECES))


def test_names_without_the_prefix_of_the_model_are_read(change, originals):
    folder = change("gpt2")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    safetensors.torch.save_file(bare, folder / "model.safetensors", {"format": "pt"})
    theirs = dict(open_folder(originals / "gpt2").tensors(PIECES))
    for name, tensor in open_folder(folder).tensors(PIECES):
        assert tensor.equal(theirs[name])


def test_sixteen_bits_stay_sixteen_bits_where_no_value_changes(tmp_path):
    for name, kind in (("llama", torch.bfloat16), ("qwen2", torch.float16)):
        save(name, tmp_path / name, dtype=kind).to(kind).save_pretrained(tmp_path / name)
        weights = open_folder(tmp_path / name)
        assert weights.dtype == kind
        assert {tensor.dtype for _, tensor in weights.tensors(PIECES)} == {kind}
    save("gemma", tmp_path / "gemma").to(torch.bfloat16).save_pretrained(tmp_path / "gemma")
    assert open_folder(tmp_path / "gemma").dtype == torch.float32


def test_shards_are_read_and_a_missing_one_is_named(tmp_path, originals):
    model = save("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    theirs = dict(open_folder(originals / "llama").tensors(PIECES))
    for name, tensor in open_folder(tmp_path).tensors(PIECES):
        assert tensor.equal(theirs.pop(name))
    assert not theirs
    shards[1].unlink()
    assert f"{shards[1].name} is missing, one of {len(shards)} files" in refusal(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(shards[1].name, "../elsewhere.safetensors"))
    assert "elsewhere.safetensors' is not the name of a file in this" in refusal(tmp_path)


def test_a_folder_without_safetensors_is_refused(change, tmp_path):
    folder = change("llama")
    (folder / "model.safetensors").unlink()
    assert "the weights are missing" in refusal(folder)
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 damaged")
    assert "model.safetensors: cannot be read" in refusal(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: cannot be read" in refusal(folder)
    (folder / "config.json").unlink()
    assert "config.json: no such file" in refusal(folder)


def test_a_tensor_of_integers_is_refused(change):
    folder = change("llama")
    rewrite(folder, {"model.norm.weight": torch.ones(48, dtype=torch.int8)})
    with pytest.raises(AtlasError, match=r"model\.norm\.weight has type I8, not a float type"):
        dict(open_folder(folder).tensors(PIECES))


def test_every_architecture_has_a_model_in_the_tests():
    assert {name.split("-")[0] for name in MODELS} == set(FAMILIES)
