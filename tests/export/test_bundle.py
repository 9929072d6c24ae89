"""Weights and metadata as an export reads them."""

import pytest
import torch

from atlas.corpora.manifest import RawFile, write_manifest
from atlas.errors import AtlasError
from atlas.export.bundle import MAX_URLS, ModelMetadata, StoredWeights, TrainingData
from atlas.export.gguf.writer import size_label
from atlas.model.weights import write_weights


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_type_are_read_as_float32(tmp_path, kind):
    matrix, vector = torch.randn(24, 7).to(kind), torch.randn(24, dtype=torch.float64)
    tensors = {"matrix": matrix, "vector": vector}
    write_weights(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    weights = StoredWeights(tmp_path)
    assert weights.shapes == {"matrix": (24, 7), "vector": (24,)}
    assert weights.empty("matrix").shape == (24, 7)
    assert torch.equal(weights.read("matrix"), matrix.float())
    assert torch.equal(weights.read("vector"), vector.float())


def test_integers_are_not_weights(tmp_path):
    write_weights({"matrix": torch.ones(2, 2, dtype=torch.int64)}, tmp_path / "model.safetensors")
    with pytest.raises(AtlasError, match="matrix has type I64, not a float type"):
        StoredWeights(tmp_path)


def test_a_file_that_was_cut_short_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    write_weights({"matrix": torch.ones(20, 20)}, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(AtlasError, match=r"model\.safetensors: cannot be read \(.*dvc repro"):
        StoredWeights(tmp_path)


def test_training_data_has_no_local_paths(tmp_path):
    files = [
        RawFile("a", "https://example.org/a", "0" * 64, 1000, "CC0-1.0"),
        RawFile("b", "/home/someone/secret.txt", "0" * 64, 500, "MIT"),
        RawFile("c", "https://example.org/a", "0" * 64, 9, "MIT"),
    ]
    write_manifest(tmp_path, "mixed", files)
    data = TrainingData.read(tmp_path / "manifest.json")
    assert data == TrainingData("mixed", 3, 1509, ("MIT", "CC0-1.0"), ("https://example.org/a",))
    assert data.describe() == "mixed: 3 files, 1,509 bytes; licence: MIT, CC0-1.0"


def test_the_number_of_urls_is_limited(tmp_path):
    files = [RawFile(str(i), f"http://x.org/{i}", "0" * 64, 1, "MIT") for i in range(50)]
    write_manifest(tmp_path, "many", files)
    assert len(TrainingData.read(tmp_path / "manifest.json").urls) == MAX_URLS


def test_metadata_is_one_line_without_quotes():
    metadata = ModelMetadata("m", 'Ann "A" Other', "MIT", "One\n# two", "x")
    assert (metadata.author, metadata.description) == ("Ann 'A' Other", "One # two")


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(AtlasError, match=r"manifest\.json: not a manifest"):
        TrainingData.read(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    ("parameters", "label"),
    [(12, "12"), (95_552, "95.6K"), (1_000_576, "1.0M"), (124_400_000, "124.4M"), (8e9, "8.0B")],
)
def test_size_labels_are_those_of_file_names(parameters, label):
    assert size_label(parameters) == label
