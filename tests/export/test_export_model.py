"""Whole exports of a tiny model, in the formats asked for."""

import json

import pytest
import torch

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.about import About, TrainingData
from atlas.export.export_model import export_model
from atlas.export.gguf import files as module
from atlas.export.held_out import HeldOut, encode_texts, own_samples
from atlas.export.source import Source
from atlas.model.decoder import Decoder
from atlas.model.initialize import initialise
from atlas.model.storage import load_model, save_weights
from tests.export.models import SHAPES, store
from tests.small import small_config, text

TEXTS = [text(seed) for seed in range(900, 904)]
ABOUT = About(
    "mine",
    "Ann Other",
    "apache-2.0",
    "It writes of lamps.",
    "https://example.org/mine",
    TrainingData("lamps", 2, 1234, ("CC0-1.0",), ("https://example.org/lamps",)),
)


@pytest.fixture
def source(tmp_path, tokenizer):
    store(tmp_path / "model", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    return Source.load(tmp_path / "model", tmp_path / "tokenizer", ABOUT)


@pytest.fixture
def held_out(tmp_path, tokenizer):
    documents = [Document(str(number), "s", each) for number, each in enumerate(TEXTS)]
    (tmp_path / "tokens").mkdir()
    split = encode_texts(TEXTS, tokenizer, tmp_path / "tokens")
    return HeldOut.of(documents, split, 96, prompts=2, tokens=10, windows=3)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "export"
    path.mkdir()
    return path


def test_only_the_formats_asked_for_stay_and_all_are_checked(source, held_out, folder):
    exported = export_model(source, ["gguf:q8_0"], held_out, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "Modelfile",
        "README.md",
        "mine-q8_0.gguf",
    ]
    metrics = exported.metrics
    assert metrics["architecture"] == "llama"
    assert metrics["token_mismatches"] == 0
    assert metrics["logit_difference"] < 1e-4 < metrics["q8_0_logit_difference"]
    assert metrics["q8_0_bytes"] == (folder / "mine-q8_0.gguf").stat().st_size
    assert metrics["q8_0_types"] == "15 q8_0"
    assert metrics["q8_0_perplexity"] == pytest.approx(metrics["perplexity"], rel=0.02)
    assert 0 < metrics["q8_0_kl_divergence"] < 1e-2
    assert 0.8 < metrics["q8_0_top_1_agreement"] <= 1
    assert exported.speeds["q8_0_tokens_per_second"] > 0
    assert "f32_bytes" not in metrics
    assert [row.format for row in exported.files] == ["pytorch", "q8_0"]
    assert exported.files[1].bits_per_weight > 8.5


def test_a_hugging_face_folder_needs_no_gguf(source, held_out, folder):
    exported = export_model(source, ["hugging_face"], held_out, folder)
    assert exported.metrics["hugging_face_class"] == "LlamaForCausalLM"
    assert exported.metrics["hugging_face_token_mismatches"] == 0
    assert exported.metrics["hugging_face_logit_difference"] < 1e-4
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "mine-hugging_face"]
    assert 'from_pretrained(".")' in (folder / "mine-hugging_face/README.md").read_text()


@pytest.mark.slow
def test_programs_are_checked_as_well(source, held_out, folder):
    exported = export_model(source, ["onnx", "torch"], held_out, folder)
    assert exported.metrics["onnx_logit_difference"] < 1e-4
    assert exported.metrics["torch_greedy_mismatches"] == 0
    assert {"mine.onnx", "mine.pt2"} < {path.name for path in folder.iterdir()}


def test_a_model_that_a_runtime_cannot_express_is_refused(source, held_out, folder, tokenizer):
    config = source.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"window": 5}))
    windowed = Source.load(source.folder, source.folder.parent / "tokenizer", ABOUT)
    with pytest.raises(AtlasError, match=r"llama\.cpp has no architecture for it"):
        export_model(windowed, ["gguf:f32"], held_out, folder)
    with pytest.raises(AtlasError, match="transformers has no class for it"):
        export_model(windowed, ["hugging_face"], held_out, folder)


def test_a_model_and_a_tokenizer_that_do_not_belong_together_are_refused(source, tmp_path):
    config = source.folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"tokenizer_sha256": "0" * 64}))
    with pytest.raises(AtlasError, match=r"tokenizer: of another tokenizer than the one"):
        Source.load(source.folder, tmp_path / "tokenizer", ABOUT)
    config.write_text(json.dumps(values | {"vocab_size": 448}))
    with pytest.raises(AtlasError, match=r"its embedding has 448 rows and .* 400 pieces"):
        Source.load(source.folder, tmp_path / "tokenizer", ABOUT)


def test_a_disagreement_stops_the_export(source, held_out, folder, monkeypatch):
    write = module.write_gguf

    def write_another(path, other, *arguments):
        decoder = Decoder(small_config(**SHAPES["llama"]))
        initialise(decoder, 1)
        save_weights(decoder, source.folder / "model.safetensors")
        write(path, other, *arguments)

    monkeypatch.setattr(module, "write_gguf", write_another)
    with pytest.raises(AtlasError, match=r"f32\.gguf: llama\.cpp does not agree"):
        export_model(source, ["gguf:f32"], held_out, folder)


def test_a_very_large_split_is_compared_in_part(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("atlas.export.held_out.MOST_CHARACTERS", len(TEXTS[0]) + 5)
    documents = [Document(str(number), "s", each) for number, each in enumerate(TEXTS)]
    split = encode_texts(TEXTS, tokenizer, tmp_path)
    held_out = HeldOut.of(documents, split, 96, prompts=2, tokens=10, windows=0)
    assert held_out.texts == [TEXTS[0], TEXTS[1][:5]]
    predicted = sum(batch.predicted() for batch in held_out.batches)
    assert predicted == sum(len(tokenizer.encode(each)) + 1 for each in TEXTS)


def test_a_model_can_be_checked_by_what_it_writes(source, tokenizer):
    model = load_model(source.folder, torch.device("cpu"))
    samples = own_samples(model, tokenizer)
    assert samples == own_samples(model, tokenizer)
    assert len(set(samples)) > 1
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.embedding.weight[tokenizer.eos] = 1.0
        model.norm.weight.fill_(1.0)
    model.forward = lambda ids, **_: (
        torch.nn.functional.one_hot(torch.full_like(ids, tokenizer.eos), 400).float().mul(1e4)
    )
    with pytest.raises(AtlasError, match="--text: the model writes nothing by itself"):
        own_samples(model, tokenizer)
