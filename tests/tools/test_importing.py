"""`atlas import` makes a base model that agrees with its source, whole or not at all."""

import errno
import json
import pickle
import shutil
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from atlas.errors import AtlasError
from atlas.export.gguf.writer import write_gguf
from atlas.inference.backends.load import load_model
from atlas.model.config import ModelConfig
from atlas.params import presets
from atlas.params.runtime_support import architecture_of
from atlas.tools import importing, sources
from atlas.tools.importing import TEXTS, check_memory, import_model
from tests.code_walk import ROOT
from tests.export.models import SHAPES, InProcess, bundle_of, store
from tests.small import small_params, text
from tests.tools.console import atlas

CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": 0,
    "initializer_range": 0.2,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder that transformers wrote."""
    folder = tmp_path_factory.mktemp("source") / "Tiny-1K"
    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=400, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    fast.train_from_iterator(map(text, range(20)), trainer)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=fast.get_vocab_size() + 16, **SHAPE)
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<|end|>").save_pretrained(folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n")
    (folder / "LICENSE").write_text("Do as you like.\n")
    return folder


@pytest.fixture
def source(tmp_path, good):
    return shutil.copytree(good, tmp_path / "Tiny-1K")


@pytest.fixture
def out(tmp_path):
    (tmp_path / "models").mkdir()
    return tmp_path / "models/base"


@pytest.fixture
def quick(monkeypatch):
    """Run transformers in this process, for a few tokens, and trust the tokenizer."""
    monkeypatch.setattr(importing, "TRANSFORMERS", InProcess("transformers"))
    monkeypatch.setattr(importing, "GREEDY_TOKENS", 4)
    monkeypatch.setattr(sources, "trying", lambda *_: nullcontext())


def write_json(path, values):
    path.write_text(json.dumps(values))


def change(path, **values):
    write_json(path, json.loads(path.read_text()) | values)


def change_weights(folder, change_one):
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    change_one(tensors)
    safetensors.torch.save_file(tensors, file, {"format": "pt"})


def refused(path, out, message, **options):
    """The import fails with one line, and nothing is written."""
    with pytest.raises(AtlasError, match=message) as error:
        import_model(path, out, out.parent.parent, **options)
    assert "\n" not in str(error.value)
    assert list(out.parent.iterdir()) == []


def test_a_hugging_face_folder_becomes_a_base_model(source, out, quick, capsys):
    import_model(source, out, out.parent.parent)
    assert sorted(path.name for path in out.iterdir()) == [
        "LICENSE", "config.json", "model.safetensors", "origin.json", "preset.yaml", "tokenizer",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    for expected in (
        "Tiny-1K: LlamaForCausalLM",
        "16 unused rows of the embedding left out",
        "equal in transformers",
        "apache-2.0",
        "atlas preset base --apply",
    ):
        assert expected in printed
    origin = json.loads((out / "origin.json").read_text())
    assert (origin["name"], origin["license"]) == ("Tiny-1K", "apache-2.0")
    assert origin["checks"]["token_mismatches"] == origin["checks"]["greedy_mismatches"] == 0
    assert origin["checks"]["logit_difference"] < 1e-4
    assert "model.safetensors" in origin["files"]
    for file in ("origin.json", "preset.yaml", "config.json"):
        assert str(source.parent) not in (out / file).read_text()
    model = LlamaForCausalLM.from_pretrained(source)
    loaded = load_model(out)
    ids = loaded.encode(TEXTS[0])[:80]
    with torch.no_grad():
        expected = model(torch.tensor([ids])).logits[0, -1, : loaded.vocab_size]
    np.testing.assert_allclose(loaded.backend(1).prefill({0: ids})[0], expected, atol=1e-4)


def test_the_preset_of_a_base_model_fits_it(source, out, quick, tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    import_model(source, out, tmp_path)
    values = {change.key: change.new for change in presets.changes(tmp_path, ["base"])}
    assert "-S train.start=models/base " in presets.as_flags(values)  # no value needs quotes
    params = presets.with_presets(tmp_path, ["base"])
    config = ModelConfig.read(out)
    assert params.model.model_dump() == config.model_dump(include=set(params.model.model_dump()))
    assert params.tokenizer.path == "models/base/tokenizer"
    assert params.train.sequence_length == config.sequence_length == 96
    assert params.export.license == "apache-2.0"
    assert presets.with_presets(tmp_path, ["base", "lora"]).train.lora.rank
    assert presets.described(tmp_path)[0] == (
        "base",
        "Fine-tune Tiny-1K for about ten minutes on two cores",
    )


def test_a_base_model_is_replaced_and_other_folders_are_not(source, out, quick, tmp_path):
    import_model(source, out, tmp_path)
    before = (out / "model.safetensors").read_bytes()
    change_weights(source, lambda tensors: tensors["model.norm.weight"].mul_(2))
    import_model(source, out, tmp_path)
    assert (out / "model.safetensors").read_bytes() != before
    shutil.rmtree(out)
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(AtlasError, match="base: already exists, and `atlas import` did not write"):
        import_model(source, out, tmp_path)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    with pytest.raises(AtlasError, match="nowhere/models does not exist; create it first"):
        import_model(source, tmp_path / "nowhere/models/base", tmp_path)


def test_a_tokenizer_elsewhere_is_tried_but_not_compared(source, out, quick, monkeypatch, capsys):
    tried = []
    monkeypatch.setattr(sources, "trying", lambda file, _: tried.append(file) or nullcontext())
    other = source.with_name("other")
    other.mkdir()
    for file in source.glob("tokenizer*"):
        shutil.move(file, other)
    for path in (other, other / "tokenizer.json"):
        import_model(source, out, out.parent.parent, tokenizer=path)
        assert "tokens not compared: the tokenizer is not the source's" in capsys.readouterr().out
        origin = json.loads((out / "origin.json").read_text())
        assert "tokenizer.json" in origin["tokenizer_files"]
        assert "tokenizer.json" not in origin["files"]
    assert tried == [other / "tokenizer.json"] * 2


def test_shards_are_read(source, out, quick, tmp_path):
    model = LlamaForCausalLM.from_pretrained(source)
    (source / "model.safetensors").unlink()
    model.save_pretrained(source, max_shard_size="20KB")
    import_model(source, out, tmp_path)
    files = json.loads((out / "origin.json").read_text())["files"]
    assert sum(name.endswith(".safetensors") for name in files) > 1


def test_a_position_table_is_cut_to_the_context(source, out, quick, tmp_path):
    shape = {"n_positions": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2}
    size = json.loads((source / "config.json").read_text())["vocab_size"]
    ends = {"bos_token_id": None, "eos_token_id": 0}
    GPT2LMHeadModel(GPT2Config(vocab_size=size, **shape, **ends)).save_pretrained(source)
    import_model(source, out, tmp_path, context_length=48)
    preset = yaml.safe_load((out / "preset.yaml").read_text())
    assert (preset["model"]["positions"], preset["model"]["context_length"]) == ("learned", 48)
    assert {type(preset["train"][key]) for key in ("steps", "eval_every")} == {int}
    assert "gate" not in preset["train"]["lora"]["targets"]


def test_weights_keep_16_bits_if_that_loses_nothing(source, out, quick, tmp_path):
    model = LlamaForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    model.save_pretrained(source)
    import_model(source, out, tmp_path)
    import_model(out, out.with_name("again"), tmp_path)
    for folder in (out, out.with_name("again")):
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_an_earlier_run_becomes_a_base_model(tmp_path, tokenizer, out):
    (tmp_path / "project").mkdir()
    store(tmp_path / "project/model", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "project/tokenizer")
    import_model(tmp_path / "project/model", out, tmp_path)
    origin = json.loads((out / "origin.json").read_text())
    assert (origin["name"], origin["kind"]) == ("atlas", "atlas")
    assert origin["checks"]["logit_difference"] == 0
    ids = load_model(out).encode("the lamp")
    assert ids == load_model(tmp_path / "project/model").encode("the lamp")
    write_json(tmp_path / "project/model/base.json", {"name": "Tiny", "license": "mit"})
    import_model(tmp_path / "project/model", out, tmp_path)
    origin = json.loads((out / "origin.json").read_text())
    assert (origin["name"], origin["license"]) == ("atlas", "mit")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"n_layer": 9},
            r"model: tensor blocks\.2\.\S+ has shape None, and config\.json describes",
        ),
        ({"d_ff": 50}, r"tensor blocks\.0\.feed_forward\.\S+ has shape .* describes"),
        ({"d_model": 1 << 24}, "the config describes 2 blocks of 16,777,216 channels"),
    ],
)
def test_an_earlier_run_with_another_config_is_refused(tmp_path, tokenizer, out, keys, message):
    (tmp_path / "project").mkdir()
    store(tmp_path / "project/model", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "project/tokenizer")
    change(tmp_path / "project/model/config.json", **keys)
    refused(tmp_path / "project/model", out, message)


def test_end_tokens_that_only_llama_cpp_knows_are_no_difference(source, out, quick, tmp_path):
    special = {"id": 383, "content": "<|im_end|>", "special": True}
    rules = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokens = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
    change(source / "tokenizer.json", added_tokens=[*tokens, special | rules])
    import_model(source, out, tmp_path)
    assert ModelConfig.read(out).end_ids == (0, 383)


def test_a_shorter_context(source, out, quick, tmp_path):
    refused(source, out, "--context-length 97: .* was trained with 96", context_length=97)
    import_model(source, out, tmp_path, context_length=64)
    preset = yaml.safe_load((out / "preset.yaml").read_text())
    assert preset["model"]["context_length"] == preset["train"]["sequence_length"] == 64


def test_a_window_that_a_shorter_context_fits_is_dropped(source, out, quick, tmp_path):
    size = json.loads((source / "config.json").read_text())["vocab_size"]
    config = MistralConfig(vocab_size=size, sliding_window=48, head_dim=8, **SHAPE)
    MistralForCausalLM(config).save_pretrained(source)
    for length, window in ((48, None), (49, 48), (None, 48)):
        import_model(source, out, tmp_path, context_length=length)
        assert ModelConfig.read(out).window == window


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_is_refused_by_name(source, out, name):
    change(source / name, auto_map=CODE)
    refused(source, out, rf"{name}: auto_map names code of its own, which Atlas never runs")


@pytest.mark.parametrize("with_config", [True, False])
def test_pickles_are_refused_by_name(source, out, with_config):
    for name in () if with_config else ("config.json",):
        (source / name).unlink()
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    refused(source, out, r"its weights are pickles \(pytorch_model\.bin\), which can run code")
    message = r"pickles \(pytorch_model\.bin\).* model\.safetensors, and give the folder"
    refused(source / "pytorch_model.bin", out, message)


def test_a_path_that_is_no_model(source, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", out, "an empty folder; give the folder of a model")
    refused(tmp_path / "Tiny-1k", out, r"no such file or folder: did you mean .*/Tiny-1K\?")
    for name in ("HuggingFaceTB/SmolLM2-135M", "https://huggingface.co/HuggingFaceTB/SmolLM2-135M"):
        command = "`hf download HuggingFaceTB/SmolLM2-135M --local-dir SmolLM2-135M`"
        refused(Path(name), out, f"Atlas reads local files only; {command}")
    (tmp_path / "a.gguf").write_bytes(b"PK\3\4 and more")
    refused(tmp_path / "a.gguf", out, "not a GGUF file")
    refused(source / "model.safetensors", out, "give the folder with config.json")
    (tmp_path / "files").mkdir()
    shutil.move(tmp_path / "a.gguf", tmp_path / "files")
    refused(tmp_path / "files", out, r"a folder of GGUF files; give one of them, such as .*a\.gguf")
    for config in ("{", "{}", '"architectures"'):
        (source / "config.json").write_text(config)
        refused(source, out, r"config\.json: neither of transformers .* nor of Atlas, or damaged")
    (source / "config.json").unlink()
    refused(source, out, "there are weights, but no config.json")
    shutil.copytree(source, tmp_path / "project/models/model")
    (tmp_path / "project/models/model/config.json").write_text("{}")
    refused(tmp_path / "project", out, "a project, not a model; give .*project/models/model")


def test_adapters_are_refused(source, out):
    write_json(source / "adapter_config.json", {"base_model_name_or_path": "a\nb"})
    refused(source, out, "an adapter of a b, not a whole model; merge the two with peft")


def drop_a_tensor(source):
    change_weights(source, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))


def cut_a_shape(source):
    name = "model.layers.1.mlp.up_proj.weight"
    change_weights(source, lambda tensors: tensors.update({name: tensors[name][:40].clone()}))


def add_nan(source):
    change_weights(source, lambda tensors: tensors["model.norm.weight"][3].fill_(torch.nan))


def truncate(source):
    file = source / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def name_a_missing_shard(source):
    shard = "model-00002-of-00002.safetensors"
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"model.norm.weight": shard}}
    write_json(source / "model.safetensors.index.json", index)


def take_another_tokenizer(source):
    change_weights(source, lambda tensors: tensors.update({EMBEDDING: tensors[EMBEDDING][:300]}))
    change(source / "config.json", vocab_size=300)


def take_a_far_smaller_tokenizer(source):
    change(source / "config.json", vocab_size=9000)
    change_weights(source, lambda tensors: tensors.update({EMBEDDING: torch.randn(9000, 32)}))


EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_a_tensor, r"layers\.1\.mlp\.up_proj\.weight"),
        (cut_a_shape, r"layers\.1\.mlp\.up_proj\.weight"),
        (add_nan, r"norm\.weight has values that are not finite"),
        (truncate, "safetensors"),
        (name_a_missing_shard, r"index\.json: names model-00002-of-00002\.safetensors, not in"),
        (take_another_tokenizer, "383 tokens, and the embedding has 300 rows: the tokenizer is of"),
        (take_a_far_smaller_tokenizer, "9,000 rows: too many for padding, so the tokenizer is of"),
        ({"model_type": "own", "architectures": ["Own"]}, "Own"),
        ({"attention_bias": True}, "bias"),
        ({"hidden_act": "tanh"}, "hidden_act"),
    ],
)
def test_a_wrong_folder_is_refused_with_its_reason(source, out, damage, message):
    if isinstance(damage, dict):
        change(source / "config.json", **damage)
    else:
        damage(source)
    refused(source, out, message)


def test_too_little_memory_is_named_with_the_estimate(source, out, monkeypatch):
    check_memory(source, 10**9, 3 * 10**9)
    with pytest.raises(AtlasError, match=r"needs about 2\.5 GB of memory .*, and 2\.0 GB are free"):
        check_memory(source, 10**9, 2 * 10**9)
    memory = importing.psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(importing.psutil, "virtual_memory", lambda: memory)
    refused(source, out, "import needs about 0.5 GB of memory .* and 0.0 GB are free")
    out.parent.rmdir()
    with pytest.raises(AtlasError, match="import needs about"):
        import_model(source, out, out.parent.parent)
    assert not out.parent.exists()


def test_a_full_disk_is_one_line(source, out, monkeypatch):
    def write(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(importing, "write_json", write)
    monkeypatch.setattr(importing, "check_base", lambda *_: importing.Result(_[2]))
    refused(source, out, r"base: not written \(No space left on device\)")


def test_a_stop_in_the_middle_keeps_the_base_model(source, out, quick, tmp_path, monkeypatch):
    import_model(source, out, tmp_path)
    before = (out / "model.safetensors").read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(importing, "check_base", stop)
    with pytest.raises(KeyboardInterrupt):
        import_model(source, out, tmp_path)
    assert [path.name for path in out.parent.iterdir()] == ["base"]
    assert (out / "model.safetensors").read_bytes() == before


def test_a_snapshot_in_the_cache_of_the_hub_has_the_name_of_its_model(source, tmp_path):
    snapshot = tmp_path / "models--owner--Tiny/snapshots" / ("0a" * 20)
    shutil.copytree(source, snapshot)
    with patch.object(sources, "trying", lambda *_: nullcontext()):
        assert sources.open_source(snapshot).name == "Tiny"
    (tmp_path / "secret").write_text("secret")
    (snapshot / "LICENSE").unlink()
    (snapshot / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(AtlasError, match=r"LICENSE: a link to .*secret, out of the folder"):
        sources.open_source(snapshot)


def test_text_of_a_source_controls_no_terminal(source, out, quick, tmp_path, capsys):
    (source / "README.md").write_text("---\nlicense: \x1b[31mred\n---\n")
    import_model(source, out, tmp_path)
    assert "\x1b" not in capsys.readouterr().out
    assert "license: null" in (out / "preset.yaml").read_text()


def test_the_tolerance_is_that_of_the_feed_forward_layer():
    for name, kind, tolerance in (
        ("llama", "swiglu", 1e-4),
        ("mpt", "gelu", 5e-3),
        ("mpt", "relu", 1e-3),
    ):
        params = small_params(**{"model.feed_forward": kind, "export.formats": []}).model
        assert importing.logit_tolerance(name, params) == tolerance


def test_logits_that_differ_are_refused(source, out, quick, monkeypatch):
    smallest = importing._smallest

    def changed(tensor, dtype):
        return smallest(tensor * 1.01, dtype)

    monkeypatch.setattr(importing, "_smallest", changed)
    refused(source, out, "transformers disagrees with PyTorch: logits differ .*; not imported")


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("gguf")
    store(folder / "model", SHAPES["llama"], tokenizer)
    bundle = bundle_of(folder / "model", tokenizer)
    architecture = architecture_of(bundle.config.model_dump())
    write_gguf(folder / "Mine.Q4_0.gguf", bundle, architecture, "q4_0")
    return folder / "Mine.Q4_0.gguf"


@pytest.mark.slow
def test_a_quantized_file_agrees_exactly_with_its_dequantized_weights(
    gguf_file, out, tmp_path, capsys
):
    import_model(gguf_file, out, tmp_path)
    origin = json.loads((out / "origin.json").read_text())
    assert (origin["name"], origin["kind"], origin["architecture"]) == ("Mine", "gguf", "llama")
    checks = origin["checks"]
    assert checks["token_mismatches"] == checks["greedy_mismatches"] == 0
    assert checks["logit_difference"] < checks["logit_tolerance"] < checks["file_logit_difference"]
    assert 0 < checks["file_kl_divergence"] < 0.1
    assert checks["types"] == "Q4_0, Q8_0"
    assert "llama.cpp also rounds activations for Q4_0, Q8_0" in capsys.readouterr().out
    assert [path.name for path in out.iterdir() if path.suffix == ".gguf"] == []


@pytest.mark.slow
def test_a_source_is_exported_with_the_same_proof(gguf_file, tmp_path, capsys):
    shutil.copy(gguf_file, tmp_path)
    options = ("--to", "gguf:q8_0", "--to", "hugging_face")
    code, printed, error = atlas("export", gguf_file.name, *options, cwd=tmp_path)
    assert code == 0, error
    assert "Mine-export/Mine-q8_0.gguf" in printed
    assert "hugging face logit difference" in printed
    assert "tokens of short texts of Atlas" in (tmp_path / "Mine-export/README.md").read_text()


def test_an_impossible_export_of_a_source_is_refused_before_the_import(gguf_file, tmp_path):
    for arguments, message in (
        (("--to", "gguf:q9"), "--to gguf:q9: it must be one of"),
        (("--to", "gguf:q8_0", "--out", "a/b"), "--out a/b: folder a does not exist"),
        (("--to", "gguf:adapter"), "has no adapter that Atlas trained; export the whole model"),
    ):
        code, printed, error = atlas("export", str(gguf_file), *arguments, cwd=tmp_path)
        assert (code, printed) == (1, "")
        assert message in error
    assert list(tmp_path.iterdir()) == []


MODEL = b"\5" + bytes(7) + b"model"  # a text of GGUF, with its length


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-100], "damaged, or cut short"),
        (lambda data: data[:5], "damaged, or cut short"),
        (
            lambda data: data.replace(MODEL, b"\5" + bytes(7) + b"adapt"),
            "general.type is adapt, so it",
        ),
        (lambda data: data.replace(b"llama", b"lambs"), "general.architecture is lambs, which"),
        (lambda data: data.replace(b"block_count", b"black_count"), "llama.block_count is missing"),
        (lambda data: data.replace(b"blk.1.ffn_up.weight", b"blk.7.ffn_up.weight"), r"ffn_up"),
    ],
)
def test_a_wrong_gguf_file_is_refused_with_its_reason(gguf_file, out, tmp_path, damage, message):
    file = tmp_path / "wrong.gguf"
    file.write_bytes(damage(gguf_file.read_bytes()))
    refused(file, out, message)
