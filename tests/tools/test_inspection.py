"""`atlas inspect` describes any GGUF file; damaged and other files give one line."""

from contextlib import suppress

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.export.gguf.writer import write_gguf
from atlas.params.runtime_support import architecture_of
from atlas.pipeline.gguf_file import read_gguf
from atlas.tools.inspection import print_gguf
from tests.export.models import SHAPES, bundle_of, store


@pytest.fixture(scope="module")
def file(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("inspect")
    model = store(folder / "model", SHAPES["llama"], tokenizer)
    architecture = architecture_of(model.config.model_dump())
    source = bundle_of(folder / "model", tokenizer, "lamps")
    write_gguf(folder / "m.gguf", source, architecture, "q8_0")
    return folder / "m.gguf"


def test_header_metadata_types_and_tensors_are_printed(file, capsys):
    print_gguf(file)
    lines = capsys.readouterr().out.splitlines()
    assert f"GGUF version 3, {file.stat().st_size:,} bytes, 20 tensors of " in lines[0]
    cells = [line.split() for line in lines]
    assert ["general.name", "string", "'lamps'"] in cells
    assert ["llama.rope.freq_base", "float32", "10000"] in cells
    tokens = next(line for line in cells if line[:1] == ["tokenizer.ggml.tokens"])
    assert tokens[1:4] == ["array[string]", "400:", "'<unk>',"]
    assert ["blk.1.ffn_down.weight", "Q8_0", "64", "x", "96", "6,528"] in cells
    assert ["F32", "5", "320", "1,280"] in cells


def test_a_file_of_another_program_is_described(tmp_path, capsys):
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "clip")
    writer.add_array("other.list", [[1, 2], [3, 4]])
    writer.add_string("odd\x1b[31m", "x")
    writer.add_string("other.text", "x [bold] " * 50)
    writer.add_tensor("a", np.ones((2, 3, 4), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print_gguf(tmp_path / "other.gguf")
    output = capsys.readouterr().out
    assert "x [bold] x [bold]" in output
    assert "4 values: 1, 2, 3, 4" in output
    assert "odd\\x1b[31m" in output
    assert "(450 characters)" in output
    assert ["a", "F16", "2", "x", "3", "x", "4", "48"] in map(str.split, output.splitlines())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_short_is_one_line(file, tmp_path, share):
    data = file.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(AtlasError, match=r"cut\.gguf: (damaged, or cut short at|not a GGUF file)"):
        read_gguf(cut)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(4, 3000), value=st.integers(0, 255))
def test_a_file_with_another_byte_is_described_or_refused(file, tmp_path, place, value):
    data = bytearray(file.read_bytes())
    data[place] = value
    (tmp_path / "bad.gguf").write_bytes(data)
    with suppress(AtlasError):  # no other error
        print_gguf(tmp_path / "bad.gguf")


@pytest.mark.parametrize("content", [b"", b"GGU", b"PK\x03\x04 and more", b"FUGG0000"])
def test_another_file_is_no_gguf_file(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(AtlasError, match=r"x\.gguf: not a GGUF file \(it begins with"):
        read_gguf(tmp_path / "x.gguf")


def test_no_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(AtlasError, match=r"no\.gguf: No such file"):
        read_gguf(tmp_path / "no.gguf")
    with pytest.raises(AtlasError, match="Is a directory"):
        read_gguf(tmp_path)
