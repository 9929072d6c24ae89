"""A Hugging Face folder from elsewhere never runs code, and what is wrong with it is one line."""

import io
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch

from atlas.errors import AtlasError
from atlas.export.hugging_face import write_hugging_face
from atlas.inference.backends.load import load_model
from atlas.params.runtime_support import class_of
from tests.code_walk import ROOT
from tests.export.models import SHAPES, bundle_of, store
from tests.tools.console import atlas

CODE = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}


@pytest.fixture(scope="module")
def good(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("hugging_face")
    store(folder / "model", SHAPES["llama"], tokenizer)
    source = bundle_of(folder / "model", tokenizer)
    write_hugging_face(folder / "good", source, class_of(source.config.model_dump()))
    return folder / "good"


@pytest.fixture
def folder(tmp_path, good):
    return shutil.copytree(good, tmp_path / "mine")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refused(folder, message):
    with pytest.raises(AtlasError, match=message) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def say_yes(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n" * 100))
    monkeypatch.setattr("builtins.input", lambda *_: "yes")


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"model_type": "own", "auto_map": CODE}),
        ("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "a/b--own.Config"}}),
        (
            "tokenizer_config.json",
            {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}},
        ),
    ],
)
def test_own_code_never_runs_whatever_is_answered(folder, file, values, monkeypatch, capsys):
    ran = folder.parent / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    change(folder / file, **values)
    say_yes(monkeypatch)
    refused(folder, r"it needs code of its own, which Atlas never runs")
    assert not ran.exists()
    assert "custom code" not in capsys.readouterr().out


def test_a_known_class_replaces_own_code(folder, monkeypatch, caplog):
    ran = folder.parent / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w')\n")
    change(folder / "config.json", auto_map=CODE)
    say_yes(monkeypatch)
    assert load_model(folder).encode("the lamp")
    assert "not its own (auto_map)" in caplog.text
    assert not ran.exists()


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickles_are_not_read(folder, name):
    ran = folder.parent / "ran"
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Bomb(ran)}, folder / name, pickle_module=pickle)
    refused(folder, rf"its weights are pickles \({name}\)")
    assert not ran.exists()


def test_adapters_links_and_shards_stay_in_the_folder(folder, tmp_path):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc\\n"}')
    refused(folder, "an adapter of /etc, not a whole model; merge the two")
    (folder / "adapter_config.json").unlink()
    (tmp_path / "secret").write_text("a secret")
    (folder / "chat_template.jinja").symlink_to(tmp_path / "secret")
    refused(folder, r"chat_template.jinja: a link to .*secret, out of the folder")
    (folder / "chat_template.jinja").unlink()
    os.mkfifo(folder / "chat_template.jinja")
    refused(folder, "a pipe or device, not a file")
    (folder / "chat_template.jinja").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    refused(folder, r"index\.json: names \.\./secret\.safetensors, not in the folder")


def test_links_into_a_cache_are_followed(folder):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        if file.is_file():
            blob = blobs / f"{number:040x}"
            shutil.move(file, blob)
            file.symlink_to(blob)
    assert load_model(folder).engine == "transformers"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; at most"),
        ({"num_hidden_layers": 10**6}, "transformers can't load it .*far larger than its weights"),
        ({"hidden_size": 2**20}, "transformers can't load it .*far larger than its weights"),
        ({"num_hidden_layers": 3}, r"its files lack model\.layers\.2\."),
        ({"num_labels": 10**10}, "num_labels is 10000000000"),
        ({"max_position_embeddings": 10**400}, f"max_position_embeddings is 1{'0' * 39}; at most"),
        ({"vocab_size": -(10**30)}, f"vocab_size is -1{'0' * 30}; at most"),
        ({"max_position_embeddings": 0}, "less than 1"),
        ({"max_position_embeddings": "x"}, "transformers can't load it"),
        ({"_attn_implementation": "someone/kernel"}, "_attn_implementation loads code"),
        ({"text_config": {"attn_implementation": "a/b"}}, "attn_implementation loads code"),
        ({"model_type": ["a"]}, "transformers can't load it"),
    ],
)
def test_a_hostile_config_is_one_line(folder, values, message):
    change(folder / "config.json", **values)
    refused(folder, message)


def test_damaged_files_are_one_line(folder):
    weights = (folder / "model.safetensors").read_bytes()
    for damaged in (
        b"",
        weights[: len(weights) // 2],
        (1 << 62).to_bytes(8, "little") + weights[8:],
        weights[:8] + b"[" * (len(weights) - 8),
    ):
        (folder / "model.safetensors").write_bytes(damaged)
        refused(folder, "transformers can't load it")
    (folder / "model.safetensors").write_bytes(weights)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    slow = {"type": "Split", "behavior": "Isolated", "invert": False}
    slow["pattern"] = {"Regex": "(x+x+)+y"}
    for damaged in ('{"version": "1.0"', json.dumps(tokenizer | {"pre_tokenizer": slow})):
        (folder / "tokenizer.json").write_text(damaged)
        refused(folder, r"tokenizer\.json: tokenizers can't load it")
    (folder / "config.json").write_text('{"architectures": ' + "[" * 100_000)
    refused(folder, "not a model of this version")


def test_export_names_an_architecture_it_does_not_know(good, tmp_path):
    config = json.loads((good / "config.json").read_text())
    other = {"architectures": ["BertModel"], "model_type": "bert"}
    (shutil.copytree(good, tmp_path / "bert") / "config.json").write_text(
        json.dumps(config | other)
    )
    code, _, error = atlas("export", str(tmp_path / "bert"))
    assert code == 1
    assert "architectures is BertModel, which Atlas has no model for" in error
    assert error.count("\n") == 1
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes([3, *bytes(19)]))
    code, _, error = atlas("export", str(tmp_path / "x.gguf"))
    assert code == 1
    assert "general.architecture is None, which Atlas has no model for" in error


def test_no_call_may_run_code_or_pickles():
    for file in [*(ROOT / "src").rglob("*.py"), *(ROOT / "bench").rglob("*.py")]:
        source = file.read_text(encoding="utf-8")
        if ".from_pretrained(" in source:
            assert "trust_remote_code" in source, file
            assert "trust_remote_code=True" not in source, file
        assert source.count("torch.load(") == source.count("weights_only=True"), file
        assert "import pickle" not in source, file
