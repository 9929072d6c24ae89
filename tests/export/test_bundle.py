import pytest
import torch

from atlas.errors import AtlasError
from atlas.export.bundle import StoredWeights
from atlas.model.storage import write_weights


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_float_type_are_read_as_float32(tmp_path, kind):
    matrix, vector = torch.randn(24, 7).to(kind), torch.randn(24, dtype=torch.float64)
    tensors = {"matrix": matrix, "vector": vector}
    write_weights(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    weights = StoredWeights(tmp_path)
    assert weights.shapes == {"matrix": (24, 7), "vector": (24,)}
    assert weights.parameter_count() == 24 * 8
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
