"""Whole exports of a tiny model in the requested formats."""

import json

import pytest
import torch

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export import export as module
from atlas.export.bundle import (
    ModelBundle,
    ModelMetadata,
    TrainingData,
    ValidationData,
    encode_texts,
    sample_texts,
)
from atlas.export.export import export_model
from atlas.model.transformer import Decoder
from atlas.model.weights import initialize, load_model, save_weights
from atlas.params.runtime_support import architecture_of
from tests.export.models import SHAPES, bundle_of, store
from tests.small import small_config, text

TEXTS = [text(seed) for seed in range(900, 904)]
METADATA = ModelMetadata(
    "mine",
    "Ann Other",
    "apache-2.0",
    "It writes of lamps.",
    "https://example.org/mine",
    TrainingData("lamps", 2, 1234, ("CC0-1.0",), ("https://example.org/lamps",)),
)
SPEEDS = {f"q8_0_{part}_tokens_per_second" for part in ("prompt", "generation")}


@pytest.fixture
def bundle(tmp_path, tokenizer):
    store(tmp_path / "model", SHAPES["llama"], tokenizer)
    tokenizer.save(tmp_path / "tokenizer")
    return ModelBundle.load(tmp_path / "model", tmp_path / "tokenizer", METADATA)


@pytest.fixture
def data(tmp_path, tokenizer):
    documents = [Document(str(number), "s", each) for number, each in enumerate(TEXTS)]
    (tmp_path / "tokens").mkdir()
    split = encode_texts(TEXTS, tokenizer, tmp_path / "tokens")
    return ValidationData.load(documents, split, 96, prompts=2, greedy_tokens=10, max_windows=3)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "export"
    path.mkdir()
    return path


def test_all_formats_are_checked_and_only_the_requested_are_kept(bundle, data, folder):
    result = export_model(bundle, ["gguf:q8_0"], data, folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "Modelfile",
        "README.md",
        "mine-q8_0.gguf",
    ]
    metrics = result.metrics
    assert metrics["architecture"] == "llama"
    assert metrics["token_mismatches"] == 0
    assert metrics["logit_difference"] < 1e-4 < metrics["q8_0_logit_difference"]
    assert metrics["q8_0_bytes"] == (folder / "mine-q8_0.gguf").stat().st_size
    assert metrics["q8_0_types"] == "15 q8_0"
    assert metrics["q8_0_perplexity"] == pytest.approx(metrics["perplexity"], rel=0.02)
    assert 0 < metrics["q8_0_kl_divergence"] < 1e-2
    assert 0.8 < metrics["q8_0_top_1_agreement"] <= 1
    assert set(result.speeds) == SPEEDS
    assert "f32_bytes" not in metrics
    assert [row.format for row in result.files] == ["pytorch", "q8_0"]
    assert result.files[1].bits_per_weight > 8.5


def test_rounding_of_a_sharp_model_with_gelu_is_no_disagreement(tmp_path, data, folder, tokenizer):
    shape = SHAPES["gpt2-bias-untied"]
    store(tmp_path / "sharp", shape, tokenizer, deviation=9)
    source = bundle_of(tmp_path / "sharp", tokenizer)
    metrics = export_model(source, ["gguf:f32"], data, folder).metrics
    usual = architecture_of(source.config.model_dump()).logit_tolerance
    assert usual < metrics["logit_difference"] < usual * metrics["logit_deviation"]
    assert metrics["logit_deviation"] == pytest.approx(9, rel=0.2)


@pytest.mark.slow
def test_a_hugging_face_folder_needs_no_gguf(bundle, data, folder):
    result = export_model(bundle, ["hugging_face"], data, folder)
    assert result.metrics["hugging_face_class"] == "LlamaForCausalLM"
    assert result.metrics["hugging_face_token_mismatches"] == 0
    assert result.metrics["hugging_face_logit_difference"] < 1e-4
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "mine-hugging_face"]
    assert 'from_pretrained(".")' in (folder / "mine-hugging_face/README.md").read_text()


@pytest.mark.very_slow
def test_programs_are_checked(bundle, data, folder):
    result = export_model(bundle, ["onnx", "torch"], data, folder)
    assert result.metrics["onnx_logit_difference"] < 1e-4
    assert result.metrics["torch_greedy_mismatches"] == 0
    assert {"mine.onnx", "mine.pt2"} < {path.name for path in folder.iterdir()}


def test_a_model_that_a_runtime_cannot_express_is_refused(bundle, data, folder, tokenizer):
    config = bundle.folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"norm_position": "post"}))
    other = ModelBundle.load(bundle.folder, bundle.folder.parent / "tokenizer", METADATA)
    with pytest.raises(AtlasError, match=r"llama\.cpp runs no model with .*norm_position=post"):
        export_model(other, ["gguf:f32"], data, folder)
    with pytest.raises(AtlasError, match=r"transformers runs no model with .*norm_position=post"):
        export_model(other, ["hugging_face"], data, folder)


def test_a_model_with_another_tokenizer_is_refused(bundle, tmp_path):
    config = bundle.folder / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"tokenizer_sha256": "0" * 64}))
    with pytest.raises(AtlasError, match=r"tokenizer: not the tokenizer that"):
        ModelBundle.load(bundle.folder, tmp_path / "tokenizer", METADATA)
    config.write_text(json.dumps(values | {"vocab_size": 448}))
    with pytest.raises(AtlasError, match=r"the embedding has 448 rows, but .* has 400 pieces"):
        ModelBundle.load(bundle.folder, tmp_path / "tokenizer", METADATA)


def test_a_disagreement_stops_the_export(bundle, data, folder, monkeypatch):
    write = module.write_gguf

    def write_another(path, other, *arguments):
        decoder = Decoder(small_config(**SHAPES["llama"]))
        initialize(decoder, 1)
        save_weights(decoder, bundle.folder / "model.safetensors")
        write(path, other, *arguments)

    monkeypatch.setattr(module, "write_gguf", write_another)
    with pytest.raises(AtlasError, match=r"f32\.gguf: llama\.cpp disagrees with PyTorch"):
        export_model(bundle, ["gguf:f32"], data, folder)


def test_a_very_large_split_is_compared_in_part(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("atlas.export.bundle.MAX_CHARACTERS", len(TEXTS[0]) + 5)
    documents = [Document(str(number), "s", each) for number, each in enumerate(TEXTS)]
    split = encode_texts(TEXTS, tokenizer, tmp_path)
    data = ValidationData.load(documents, split, 96, prompts=2, greedy_tokens=10, max_windows=None)
    assert data.texts == [TEXTS[0], TEXTS[1][:5]]
    predicted = sum(batch.num_targets() for batch in data.batches)
    assert predicted == sum(len(tokenizer.encode(each)) + 1 for each in TEXTS)


def test_windows_with_many_logits_are_in_smaller_batches(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr("atlas.export.bundle.MAX_LOGITS", 2 * 48 * tokenizer.vocab_size + 1)
    split = encode_texts(TEXTS, tokenizer, tmp_path)
    data = ValidationData.load([], split, 48, prompts=0, greedy_tokens=1, max_windows=5)
    assert [len(batch.inputs) for batch in data.batches] == [2, 2, 1]


def test_a_model_can_be_checked_on_its_own_samples(bundle, tokenizer):
    model = load_model(bundle.folder, torch.device("cpu"))
    samples = sample_texts(model, tokenizer)
    assert samples == sample_texts(model, tokenizer)
    assert len(set(samples)) > 1
    with torch.no_grad():
        model.embedding.weight.zero_()
        model.embedding.weight[tokenizer.eos] = 1.0
        model.norm.weight.fill_(1.0)
    model.forward = lambda ids, **_: (
        torch.nn.functional.one_hot(torch.full_like(ids, tokenizer.eos), 400).float().mul(1e4)
    )
    with pytest.raises(AtlasError, match="--text: all samples of the model are empty"):
        sample_texts(model, tokenizer)
