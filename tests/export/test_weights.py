import numpy as np
import pytest
import torch

from atlas.errors import AtlasError
from atlas.export.weights import StoredWeights
from atlas.model.storage import write_weights


@pytest.mark.parametrize("at_once", [1, 35, 100, 10**6])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_parts_are_the_weight_and_end_between_heads(tmp_path, monkeypatch, at_once, multiple):
    monkeypatch.setattr("atlas.export.weights.VALUES_AT_ONCE", at_once)
    matrix, vector = torch.randn(24, 7), torch.randn(24, dtype=torch.float64)
    write_weights({"matrix": matrix, "vector": vector}, tmp_path / "model.safetensors")
    weights = StoredWeights(tmp_path)
    assert weights.shapes == {"matrix": (24, 7), "vector": (24,)}
    assert weights.parameter_count() == 24 * 8
    parts = [read().copy() for read in weights.parts("matrix", multiple)]
    assert np.array_equal(np.concatenate(parts), matrix)
    assert all(len(part) % multiple == 0 for part in parts)
    assert max(part.size for part in parts) <= max(at_once, 7 * multiple)
    parts = [read().copy() for read in weights.parts("vector")]
    assert np.array_equal(np.concatenate(parts), vector.float())
    assert torch.equal(weights.whole("vector"), vector.float())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_types_become_float32(tmp_path, kind):
    matrix = torch.randn(24, 7).to(kind)
    write_weights({"matrix": matrix}, tmp_path / "model.safetensors", {"format": "pt"})
    weights = StoredWeights(tmp_path)
    assert weights.shapes == {"matrix": (24, 7)}
    assert torch.equal(weights.whole("matrix"), matrix.float())


def test_integers_are_no_weights(tmp_path):
    write_weights({"matrix": torch.ones(2, 2, dtype=torch.int64)}, tmp_path / "model.safetensors")
    with pytest.raises(AtlasError, match="matrix is of type I64, not a float"):
        StoredWeights(tmp_path)
