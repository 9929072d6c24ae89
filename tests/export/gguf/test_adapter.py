"""A LoRA adapter as a GGUF file, added to its base by our own sums and by llama.cpp."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from atlas.errors import AtlasError
from atlas.export.check.agreement import LLAMA_CPP
from atlas.export.gguf.adapter import Adapter, export_adapter, write_adapter
from atlas.export.gguf.writer import write_gguf
from atlas.model.weights import save_weights
from atlas.params.runtime_support import architecture_of
from atlas.pipeline.files import sha256
from tests.export.models import SHAPES, InProcess, bundle_of, store

TARGETS = {
    "llama": ("query", "key", "value", "output", "gate", "up", "down"),
    "llama-relu": ("query", "up", "down"),
    "gpt2-bias-untied": ("query", "value", "up"),  # queries, keys and values are one matrix
    "mpt-six": ("key", "output", "down"),
    "qwen3-eps": ("query", "key"),
}
LLAMA_RELU = SHAPES["llama"] | {"feed_forward": "relu"}
RANK, ALPHA = 3, 12.0


def tune(folder, options, tokenizer, targets, ranks=(RANK,)):
    """Store a base, and a model with random changes of its matrices next to it."""
    model = store(folder / "base", options, tokenizer)
    generator = torch.Generator().manual_seed(2)
    matrices = {}
    for name, module in model.named_modules():
        if name.startswith("blocks") and name.rpartition(".")[2] in targets:
            rank = ranks[len(matrices) // 2 % len(ranks)]
            a = torch.randn(rank, module.in_features, generator=generator)
            b = 0.02 * torch.randn(module.out_features, rank, generator=generator)
            module.weight.data += ALPHA / rank * b @ a
            matrices |= {f"{name}.lora_a": a, f"{name}.lora_b": b}
    shutil.copytree(folder / "base", folder / "model")
    save_weights(model, folder / "model/model.safetensors")
    save_file(matrices, folder / "model/adapter.safetensors")
    base = folder / "base"
    values = {"rank": RANK, "alpha": ALPHA, "targets": targets, "base": str(base)}
    values["base_sha256"] = sha256(base / "model.safetensors")
    (folder / "model/adapter.json").write_text(json.dumps(values))
    bundle = bundle_of(folder / "model", tokenizer)
    architecture = architecture_of(bundle.config.model_dump())
    write_gguf(folder / "exact.gguf", bundle, architecture, "f32")
    return bundle, architecture


@pytest.fixture(autouse=True)
def in_process(request, monkeypatch):
    """Save the seconds of a process per test, where llama.cpp does not fail."""
    if "llama_cpp" not in request.function.__name__:
        monkeypatch.setattr("atlas.export.gguf.adapter.LLAMA_CPP", InProcess("llama.cpp"))


@pytest.mark.parametrize("shape", TARGETS)
def test_base_and_adapter_add_up_to_the_model(tmp_path, tokenizer, shape):
    options = LLAMA_RELU if shape == "llama-relu" else SHAPES[shape]
    bundle, architecture = tune(tmp_path, options, tokenizer, TARGETS[shape], (RANK, 1))
    path, exact = tmp_path / "adapter.gguf", tmp_path / "exact.gguf"
    rank, difference = export_adapter(path, bundle, architecture, exact)
    assert rank == (RANK + 1 if shape == "gpt2-bias-untied" else RANK)
    assert difference < 1e-6
    reader = GGUFReader(path)
    about = {key: reader.fields[key].contents() for key in reader.fields}
    assert about["general.type"] == "adapter"
    assert about["adapter.type"] == "lora"
    assert about["adapter.lora.alpha"] == ALPHA
    assert about["general.architecture"] == architecture.name
    assert not list(tmp_path.glob("*/base.gguf"))


def test_the_adapter_of_other_changes_is_refused(tmp_path, tokenizer):
    bundle, architecture = tune(tmp_path, SHAPES["llama"], tokenizer, ("key",))
    matrices = load_file(bundle.folder / "adapter.safetensors")
    matrices["blocks.1.attention.key.lora_b"][2, 1] += 0.01
    save_file(matrices, bundle.folder / "adapter.safetensors")
    with pytest.raises(AtlasError, match=r"added to the base, blk\.1\.attn_k\.weight differs"):
        export_adapter(tmp_path / "a.gguf", bundle, architecture, tmp_path / "exact.gguf")


def test_llama_cpp_itself_loads_the_adapter(tmp_path, tokenizer):
    bundle, architecture = tune(tmp_path, SHAPES["llama"], tokenizer, ("key",))
    adapter = Adapter.read(bundle.folder)
    narrow = {
        name: each[:, :-1].contiguous() if name.endswith("_a") else each
        for name, each in adapter.matrices.items()
    }
    write_adapter(tmp_path / "a.gguf", bundle, replace(adapter, matrices=narrow), architecture)
    with pytest.raises(AtlasError, match="LoRA"):
        LLAMA_CPP.ask(
            {"adapter": str(tmp_path / "a.gguf"), "context_length": 96},
            tmp_path,
            file=tmp_path / "exact.gguf",
        )


def test_an_adapter_without_its_base_is_refused(tmp_path, tokenizer):
    bundle, architecture = tune(tmp_path, SHAPES["llama"], tokenizer, ("key",))

    def export():
        export_adapter(tmp_path / "a.gguf", bundle, architecture, tmp_path / "exact.gguf")

    weights = tmp_path / "base/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(AtlasError, match=r"base/model\.safetensors: changed since training"):
        export()
    weights.unlink()
    with pytest.raises(AtlasError, match=r"base/model\.safetensors: no such file"):
        export()
    (bundle.folder / "adapter.json").write_text("{}")
    with pytest.raises(AtlasError, match=r"adapter\.json: not an adapter of this version"):
        export()
    (bundle.folder / "adapter.safetensors").write_bytes(bytes(9))
    with pytest.raises(AtlasError, match=r"adapter\.safetensors: not an adapter of this version"):
        export()
    (bundle.folder / "adapter.safetensors").unlink()
    with pytest.raises(AtlasError, match=r"has no adapter, because it was not trained with LoRA"):
        export()
    assert not (tmp_path / "a.gguf").exists()
