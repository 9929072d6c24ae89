"""Tiny models of every row of the export table, exported and run in the real llama.cpp."""

from itertools import product

import gguf
import numpy as np
import pytest

from atlas.errors import AtlasError
from atlas.export.check.agreement import check_agreement, compare, expect
from atlas.export.gguf.writer import write_gguf
from atlas.model.weights import weights_of
from atlas.params.runtime_support import ARCHITECTURES, architecture_of
from atlas.tokens.train_tokenizer import lines_of, train_tokenizer
from tests.export.models import SHAPES, WIDE, InProcess, bundle_of, store, store_changed
from tests.small import GPT2_SHAPE, LLAMA_SHAPE, small_config, small_params, text

ROPE = {"rope_theta": 1000.0, "rope_scaling": 4.0, "rope_scaling_context": 32}
BIASES = (False, True, "qkv", "norm", "qkv_norm")
NAMES = {
    False: "",
    True: "-bias",
    "qkv": "-qkv_bias",
    "norm": "-norm_bias",
    "qkv_norm": "-two_biases",
}


def rows():
    """Every value that a row of the table allows, with each kind of bias and head."""
    for row in ARCHITECTURES:
        allowed = row.allowed
        usual = {key: values[0] for key, values in allowed.items() if values}
        heads = allowed.get("tied_head", (True, False))
        for bias, tied in product(allowed["bias"] or BIASES, heads):
            more = {"bias": bias, "tied_head": tied, "n_kv_head": 2 if bool(bias) == tied else 4}
            for position, part in product(allowed["positions"], allowed["feed_forward"]):
                options = WIDE | usual | {"positions": position, "feed_forward": part} | more
                options |= ROPE if usual["rope_scaling_kind"] == "llama3" else {}
                if architecture_of(small_config(**options).model_dump()) is not row:
                    continue  # an earlier row supports it
                kind = "-llama3" * (usual["rope_scaling_kind"] == "llama3")
                name = f"{row.name}-{position}-{part}{NAMES[bias]}{'-untied' * (not tied)}{kind}"
                is_usual = position == usual["positions"] or part == usual["feed_forward"]
                often = is_usual and bool(bias) != tied and bias in (False, True, "qkv")
                # each row both ways, but not all of it
                yield pytest.param(
                    options, id=name, marks=() if often else (pytest.mark.very_slow,)
                )


SCALED = {  # RoPE of every kind, and the other options of pretrained models
    "llama-llama3": LLAMA_SHAPE | ROPE | {"rope_scaling_kind": "llama3", "d_head": 32},
    "llama-llama3-qkv": LLAMA_SHAPE | ROPE | {"rope_scaling_kind": "llama3", "bias": "qkv"},
    "llama-yarn": LLAMA_SHAPE | ROPE | {"rope_scaling_kind": "yarn", "n_layer": 3},
    "llama-llama3-own": LLAMA_SHAPE
    | ROPE
    | {"rope_scaling_kind": "llama3", "rope_scaling_rotations": (0.5, 8.0)},
    "qwen2-yarn": LLAMA_SHAPE | ROPE | {"rope_scaling_kind": "yarn", "bias": "qkv"},
    "qwen3-wide": LLAMA_SHAPE
    | ROPE
    | {"rope_scaling_kind": "yarn", "qk_norm": "head", "d_head": 24},
    "smollm3-five": LLAMA_SHAPE | {"no_rope_every": 4, "n_layer": 5, "d_head": 32},
    "llama-yarn-relu": LLAMA_SHAPE | ROPE | {"rope_scaling_kind": "yarn", "feed_forward": "relu"},
    "smollm3-yarn": LLAMA_SHAPE
    | ROPE
    | {"no_rope_every": 4, "n_layer": 4, "rope_scaling_kind": "yarn"},
    "olmo2-yarn": LLAMA_SHAPE
    | ROPE
    | {"rope_scaling_kind": "yarn", "qk_norm": "all", "norm_position": "reordered"},
    "arcee-wide": LLAMA_SHAPE | {"feed_forward": "relu2", "d_head": 10},
    "gemma-wide": LLAMA_SHAPE | {"feed_forward": "geglu", "d_head": 32, "tied_head": True},
    "starcoder2-norm": GPT2_SHAPE | {"positions": "rope", "bias": "norm"},
    "stablelm-quarter": LLAMA_SHAPE
    | {"norm": "layernorm", "bias": "qkv_norm", "rotary_share": 0.25, "rope_scaling": 2.0},
    "stablelm-yarn": LLAMA_SHAPE
    | ROPE
    | {"norm": "layernorm", "rotary_share": 0.5, "rope_scaling_kind": "yarn"},
    "nemotron-half": LLAMA_SHAPE
    | {"norm": "layernorm", "bias": True, "rotary_share": 0.5, "feed_forward": "relu2"},
}
IN_PROCESS = InProcess("llama.cpp")
VAL = [text(seed, sentences=6) for seed in range(500, 504)]


@pytest.mark.parametrize(
    "options",
    [
        *rows(),
        *(pytest.param(shape, id=name) for name, shape in SHAPES.items()),
        *(pytest.param(WIDE | {"n_kv_head": 2} | more, id=name) for name, more in SCALED.items()),
    ],
)
def test_tokens_logits_and_greedy_text_are_equal(tmp_path, tokenizer, options, request):
    model = store(tmp_path / "model", options, tokenizer)
    architecture = architecture_of(model.config.model_dump())
    assert architecture.name == request.node.callspec.id.split("-")[0]
    expected = expect(model, tokenizer, VAL, prompts=3, greedy_tokens=60)
    file = tmp_path / "model.gguf"
    write_gguf(file, bundle_of(tmp_path / "model", tokenizer), architecture, "f32")
    agreement = compare(file, expected, model, architecture.logit_tolerance, IN_PROCESS)
    check_agreement(file, agreement, architecture.logit_tolerance)
    assert agreement.token_mismatches == 0
    assert (agreement.greedy_tokens, agreement.greedy_mismatches) == (180, 0)
    deviation = max(float(logits.std()) for _, logits in expected.sequences)
    assert deviation > 0.8  # logits near zero would agree with anything


MAX_DIFFERENCE = {"f16": 0.02, "bf16": 0.2, "q8_0": 0.4, "q4_1": 3, "q4_0": 3}


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"])
def test_smaller_types_come_close(tmp_path, tokenizer, kind):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    architecture = architecture_of(model.config.model_dump())
    expected = expect(model, tokenizer, VAL, prompts=2, greedy_tokens=5)
    sizes = {}
    for type_name in ("f32", kind):
        file = tmp_path / f"{type_name}.gguf"
        write_gguf(file, bundle_of(tmp_path / "model", tokenizer), architecture, type_name)
        sizes[type_name] = file.stat().st_size
    agreement = compare(file, expected, model, 1.0, IN_PROCESS)
    assert agreement.token_mismatches == 0
    assert 1e-4 < agreement.logit_difference < MAX_DIFFERENCE.get(kind, 1.5)
    assert sizes[kind] < sizes["f32"]


def test_a_character_tokenizer_agrees(tmp_path, documents):
    params = small_params(**{"tokenizer.kind": "char"}).tokenizer
    tokenizer = train_tokenizer(lines_of(documents), params)
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    architecture = architecture_of(model.config.model_dump())
    expected = expect(model, tokenizer, VAL, prompts=1, greedy_tokens=5)
    write_gguf(tmp_path / "m.gguf", bundle_of(tmp_path / "model", tokenizer), architecture, "f32")
    agreement = compare(tmp_path / "m.gguf", expected, model, 1e-4)
    check_agreement(tmp_path / "m.gguf", agreement, 1e-4)


def test_a_wrong_weight_is_noticed(tmp_path, tokenizer):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    expected = expect(model, tokenizer, VAL, prompts=2, greedy_tokens=20)
    store_changed(tmp_path / "model", model)
    architecture = architecture_of(model.config.model_dump())
    write_gguf(tmp_path / "m.gguf", bundle_of(tmp_path / "model", tokenizer), architecture, "f32")
    agreement = compare(tmp_path / "m.gguf", expected, model, 1e-4)
    with pytest.raises(AtlasError, match=r"llama\.cpp disagrees with PyTorch: logits differ by"):
        check_agreement(tmp_path / "m.gguf", agreement, 1e-4)


def test_another_tokenizer_is_noticed(tmp_path, tokenizer, documents):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    other = train_tokenizer(lines_of(documents[:40]), small_params().tokenizer)
    assert other.sha256 != tokenizer.sha256
    expected = expect(model, tokenizer, VAL, prompts=1, greedy_tokens=5)
    architecture = architecture_of(model.config.model_dump())
    write_gguf(tmp_path / "m.gguf", bundle_of(tmp_path / "model", other), architecture, "f32")
    agreement = compare(tmp_path / "m.gguf", expected, model, 1e-4)
    with pytest.raises(AtlasError, match="texts have different tokens"):
        check_agreement(tmp_path / "m.gguf", agreement, 1e-4)


@pytest.mark.parametrize("damage", ["cut", "none"])
def test_a_file_that_llama_cpp_refuses_is_a_failed_check(tmp_path, tokenizer, damage):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    expected = expect(model, tokenizer, VAL, prompts=1, greedy_tokens=5)
    file = tmp_path / "m.gguf"
    architecture = architecture_of(model.config.model_dump())
    write_gguf(file, bundle_of(tmp_path / "model", tokenizer), architecture, "f32")
    file.write_bytes(file.read_bytes()[:5000] if damage == "cut" else b"")
    with pytest.raises(AtlasError, match=r"m\.gguf: llama\.cpp failed with exit code"):
        compare(file, expected, model, 1e-4)


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0"])
def test_a_file_reads_back_as_written(tmp_path, tokenizer, kind):
    model = store(tmp_path / "model", SHAPES["gpt2-bias-untied"], tokenizer)
    architecture = architecture_of(model.config.model_dump())
    file = tmp_path / "m.gguf"
    write_gguf(file, bundle_of(tmp_path / "model", tokenizer, "a name"), architecture, kind)
    reader = gguf.GGUFReader(file)
    fields = {key: field.contents() for key, field in reader.fields.items()}
    assert fields["general.name"] == "a name"
    assert fields["gpt2.context_length"] == 96
    assert fields["tokenizer.ggml.eos_token_id"] == tokenizer.eos
    assert fields["tokenizer.ggml.add_space_prefix"] is False
    assert len(fields["tokenizer.ggml.tokens"]) == tokenizer.vocab_size
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    up = tensors["blk.1.ffn_up.weight"]
    values = gguf.quants.dequantize(up.data, up.tensor_type)
    ours = weights_of(model)["blocks.1.feed_forward.up.weight"].numpy()
    assert np.allclose(values, ours, atol=0 if kind == "f32" else 0.03)
    assert tensors["position_embd.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    assert tensors["blk.0.attn_qkv.bias"].tensor_type == gguf.GGMLQuantizationType.F32


def test_writing_again_gives_the_same_bytes(tmp_path, tokenizer):
    model = store(tmp_path / "model", SHAPES["llama"], tokenizer)
    architecture = architecture_of(model.config.model_dump())
    for name in ("a.gguf", "b.gguf"):
        write_gguf(tmp_path / name, bundle_of(tmp_path / "model", tokenizer), architecture, "q8_0")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
