import pytest

from atlas.corpora.manifest import RawFile, write_manifest
from atlas.errors import AtlasError
from atlas.export.gguf.metadata import size_label
from atlas.export.metadata import MAX_URLS, ModelMetadata, TrainingData


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
    with pytest.raises(AtlasError, match=r"manifest\.json: no manifest"):
        TrainingData.read(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    ("parameters", "label"),
    [(12, "12"), (95_552, "95.6K"), (1_000_576, "1.0M"), (124_400_000, "124.4M"), (8e9, "8.0B")],
)
def test_size_labels_are_those_of_file_names(parameters, label):
    assert size_label(parameters) == label
