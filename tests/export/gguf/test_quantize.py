"""Atlas's files compared with those of llama.cpp's own quantizer."""

import sys
from unittest.mock import patch

import gguf
import numpy as np
import pytest

from atlas.errors import AtlasError
from atlas.export.check.runtimes import RuntimeProcess
from atlas.export.gguf.quantize import main, matrix_types, needs_llama_cpp, quantize
from atlas.export.gguf.writer import write_gguf
from atlas.params.runtime_support import architecture_of
from tests.export.models import SHAPES, bundle_of, store

OURS = ["f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"]
WIDE = SHAPES["llama"] | {"d_model": 256, "d_ff": 512}


def write(folder, tokenizer, options, name):
    """Write the same model in a format."""
    model = store(folder / "model", options, tokenizer)
    architecture = architecture_of(model.config.model_dump())
    file = folder / f"ours-{name}.gguf"
    write_gguf(file, bundle_of(folder / "model", tokenizer), architecture, name)
    return file


class InThisProcess(RuntimeProcess):
    """llama.cpp's quantizer in the tests' process; other tests start it as users do."""

    def run(self, *arguments, file):
        with patch.object(sys, "argv", ["quantize", *arguments]):
            main()


def tensors(file):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}


@pytest.fixture(scope="module", params=["llama", "llama-mqa", "gpt2-bias-untied", "mpt-six"])
def exact(request, tmp_path_factory, tokenizer):
    """A model of each shape in F32."""
    return write(tmp_path_factory.mktemp(request.param), tokenizer, SHAPES[request.param], "f32")


@pytest.mark.parametrize("name", OURS)
def test_every_tensor_equals_llama_cpps(exact, tokenizer, monkeypatch, name):
    bundle = bundle_of(exact.parent / "model", tokenizer)
    architecture = architecture_of(bundle.config.model_dump())
    file, theirs_file = (exact.with_name(f"{whose}-{name}.gguf") for whose in ("ours", "theirs"))
    write_gguf(file, bundle, architecture, name)
    monkeypatch.setattr("atlas.export.gguf.quantize.QUANTIZER", InThisProcess("llama.cpp"))
    quantize(exact, theirs_file, name)
    ours, theirs = tensors(file), tensors(theirs_file)
    assert ours.keys() == theirs.keys()
    for key, tensor in theirs.items():
        assert ours[key].tensor_type == tensor.tensor_type, key
        assert np.array_equal(ours[key].data, tensor.data), key
    keys = ("general.file_type", "general.architecture", "general.quantization_version")
    for key in keys:
        fields = (gguf.GGUFReader(each).fields[key] for each in (file, theirs_file))
        first, second = (field.contents() for field in fields)
        assert first == second


def test_four_bits_have_a_finer_head(tmp_path, tokenizer):
    tied = tensors(write(tmp_path, tokenizer, SHAPES["llama"], "q4_0"))
    assert tied["token_embd.weight"].tensor_type.name == "Q8_0"
    untied = tensors(write(tmp_path, tokenizer, SHAPES["gpt2-bias-untied"], "q4_0"))
    assert untied["token_embd.weight"].tensor_type.name == "Q4_0"
    assert untied["output.weight"].tensor_type.name == "Q8_0"
    assert untied["blk.0.attn_qkv.weight"].tensor_type.name == "Q4_0"


@pytest.mark.parametrize(
    ("name", "types"),
    [
        ("q4_0", {"q4_0": 14, "q6_k": 1}),
        ("q4_k_m", {"q4_k": 12, "q6_k": 3}),
        ("q6_k", {"q6_k": 15}),
    ],
)
def test_wide_models_have_k_types(tmp_path, tokenizer, name, types):
    assert needs_llama_cpp(name, 256)
    exact = write(tmp_path, tokenizer, WIDE, "f32")
    quantize(exact, tmp_path / "k.gguf", name)
    assert matrix_types(tmp_path / "k.gguf") == types


def test_types_written_without_llama_cpp():
    assert not any(needs_llama_cpp(name, 128) for name in ("f32", *OURS))
    assert not any(needs_llama_cpp(name, 256) for name in ("f32", "f16", "bf16", "q8_0"))


def test_a_file_that_cannot_be_quantized_is_named(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    with pytest.raises(AtlasError, match=r"out\.gguf: llama\.cpp failed with exit code"):
        quantize(tmp_path / "bad.gguf", tmp_path / "out.gguf", "q4_0")
