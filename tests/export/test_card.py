"""The model card and the Modelfile, as their readers read them."""

import copy
import dataclasses
import json
import re

import pytest
import yaml

from atlas.errors import AtlasError
from atlas.export.bundle import BaseModel, ModelBundle, ModelMetadata, with_base
from atlas.export.card import FileRow, write_card
from tests.export.models import SHAPES, store
from tests.export.test_export import METADATA
from tests.small import text

FORMATS = ["gguf:f16", "gguf:q8_0", "hugging_face", "onnx", "torch"]
FILES = [
    FileRow("model.safetensors", "pytorch", 4_000_000, 32.0, 20.0, 0.0, 1.0, "f32"),
    FileRow("mine-f16.gguf", "f16", 2_000_000, 16.0, 20.001, 1e-7, 0.9999, "15 f16"),
    FileRow("mine-q8_0.gguf", "q8_0", 1_100_000, 8.5, 20.01, 1.5e-4, 0.98, "15 q8_0"),
]


@pytest.fixture
def card(tmp_path, tokenizer):
    """Write the card and the Modelfile; return their texts."""

    def write(
        metadata: ModelMetadata = METADATA,
        formats=FORMATS,
        files=FILES,
        speeds=(),
        own=None,
        **options,
    ):
        model = store(tmp_path / "model", SHAPES["llama"] | options, tokenizer)
        (tmp_path / "model/LICENSE").write_text("the terms")
        base = BaseModel.read(tmp_path / "model")
        metadata = with_base(metadata, base)
        bundle = ModelBundle(tmp_path / "model", model.config, own or tokenizer, metadata)
        folder = tmp_path / "out"
        (folder / "mine-hugging_face").mkdir(parents=True, exist_ok=True)
        write_card(
            bundle,
            formats=formats,
            files=files,
            speeds=dict(speeds),
            metrics={"logit_difference": 1.7e-5, "onnx_logit_difference": 2e-6},
            prompt=tokenizer.encode(text(1))[:16],
            perplexity_data="1,234 tokens of this",
            folder=folder,
        )
        cards = ("README.md", "mine-hugging_face/README.md")
        texts = {name: (folder / name).read_text() for name in cards if (folder / name).exists()}
        return texts, folder / "Modelfile"

    return write


ORIGIN = {
    "name": "Lamp-135M",
    "author": "Ann Other",
    "license": "Apache-2.0",
    "url": "https://example.org/lamp",
}


@pytest.mark.parametrize("file", ["base.json", "origin.json"])
def test_a_card_names_the_base_and_carries_its_licence(card, tmp_path, tokenizer, file):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / file).write_text(json.dumps(ORIGIN))
    chat = copy.copy(tokenizer)
    chat.chat_template = "{{ messages }}"
    chat.end_ids = frozenset({tokenizer.eos, 7})
    texts, modelfile = card(ModelMetadata("mine"), own=chat)
    for body in texts.values():
        assert yaml.safe_load(body.split("---\n")[1])["license"] == "apache-2.0"
        assert "Lamp-135M by Ann Other; licence: Apache-2.0. https://example.org/lamp" in body
        assert ("fine-tuned from Lamp-135M" in body) == (file == "base.json")
        assert "follows no instructions" not in body
    for folder in (tmp_path / "out", tmp_path / "out/mine-hugging_face"):
        assert (folder / "LICENSE").read_text() == "the terms"
    lines = modelfile.read_text().splitlines()
    stops = [line for line in lines if line.startswith("PARAMETER stop")]
    assert stops == [f'PARAMETER stop "{chat.piece(each)}"' for each in sorted(chat.end_ids)]
    assert not any(line.startswith("TEMPLATE") for line in lines)
    assert not re.search(r"\n{3}", texts["README.md"])


def test_a_base_without_a_licence_is_a_warning(tmp_path, tokenizer, caplog):
    store(tmp_path / "model", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "model/base.json").write_text('{"name": "Lamp-135M"}')
    bundle = ModelBundle.load(tmp_path / "model", tmp_path / "tokenizer", ModelMetadata("mine"))
    assert "the licence of Lamp-135M is unknown" in caplog.text
    assert bundle.metadata.license is None
    caplog.clear()
    ModelBundle.load(tmp_path / "model", tmp_path / "tokenizer", METADATA)
    assert not caplog.text
    (tmp_path / "model/base.json").write_text("[]")
    with pytest.raises(AtlasError, match=r"base\.json: damaged"):
        ModelBundle.load(tmp_path / "model", tmp_path / "tokenizer", METADATA)


def test_a_card_has_data_license_shape_quality_sample_and_usage(card):
    texts, modelfile = card()
    readme = texts["README.md"]
    inner = texts["mine-hugging_face/README.md"]
    assert 'from_pretrained(".")' in inner
    assert "gguf" not in inner
    assert "library_name: transformers" in inner
    _, front, body = readme.split("---\n", 2)
    values = yaml.safe_load(front)
    assert (values["license"], values["pipeline_tag"]) == ("apache-2.0", "text-generation")
    for line in (
        "It writes of lamps. By Ann Other. Source: https://example.org/mine",
        "| heads | 4 of 16 channels, 4 key heads |",
        "lamps: 2 files, 1,234 bytes; licence: CC0-1.0.\n\n- https://example.org/lamps\n",
        "Perplexity over 1,234 tokens of this.",
        "| mine-q8_0.gguf | 1,100,000 | 8.5 | 20.0100 | 0.00015 | 98.00 % |",
        "logits of llama.cpp differ from PyTorch's by at most 1.8e-05; logits of onnx",
        "cyllama generate -m mine-q8_0.gguf -n 100 -p",
        "llama-completion -no-cnv -m mine-q8_0.gguf -n 100 -p",
        'AutoModelForCausalLM.from_pretrained("mine-hugging_face")',
        'onnxruntime.InferenceSession("mine.onnx")',
        'torch.export.load("mine.pt2")',
    ):
        assert line in body, line
    lines = modelfile.read_text().splitlines()
    assert "FROM ./mine-q8_0.gguf" in lines
    assert 'TEMPLATE """{{ .Prompt }}"""' in lines
    assert "PARAMETER num_ctx 96" in lines
    assert 'PARAMETER stop "<|endoftext|>"' in lines
    assert 'LICENSE "apache-2.0"' in lines


def test_empty_metadata_is_left_out(card):
    texts, modelfile = card(ModelMetadata("mine"), formats=["gguf:f16"])
    readme = texts["README.md"]
    assert "license" not in readme.split("---\n")[1]
    assert "library_name" not in readme
    assert "## Training data\n\nNot stated.\n" in readme
    assert "No license is stated for the weights." in readme
    assert "LICENSE" not in modelfile.read_text()


def test_a_card_has_speeds_if_they_are_given(card):
    speeds = {
        f"{kind}_{part}_tokens_per_second": rate
        for kind, rate in (("f16", 1234), ("q8_0", 56_789))
        for part in ("prompt", "generation")
    }
    texts, _ = card(speeds=speeds)
    assert "| mine-q8_0.gguf | 56,789 | 56,789 |" in texts["README.md"]
    assert "Speed" not in texts["mine-hugging_face/README.md"]
    assert "Speed" not in card()[0]["README.md"]


def test_without_gguf_files_there_is_no_modelfile(card):
    texts, modelfile = card(formats=["onnx"], files=FILES[:1])
    assert not modelfile.exists()
    assert "llama" not in texts["README.md"].split("## Usage")[1]
    assert "ollama" not in texts["README.md"]


@pytest.mark.parametrize(
    ("kept", "file"), [(FILES[:2], "mine-f16.gguf"), (FILES, "mine-q8_0.gguf")]
)
def test_ollama_runs_the_finest_quantized_file_or_the_smallest(card, kept, file):
    smaller = dataclasses.replace(FILES[2], file="mine-q4_0.gguf", format="q4_0", bytes=700_000)
    _, modelfile = card(files=[*kept, smaller] if len(kept) > 2 else kept)
    assert f"FROM ./{file}" in modelfile.read_text()


def test_the_prompt_is_safe_in_quotes_in_any_shell(card, monkeypatch):
    texts, _ = card()
    (line,) = [line for line in texts["README.md"].splitlines() if line.startswith("cyllama")]
    assert line.count('"') == 2
    assert not set("$`\\'!") & set(line)
