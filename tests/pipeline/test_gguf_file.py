"""GGUF files from elsewhere: every number is checked before it is used."""

import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.export.gguf.writer import write_gguf
from atlas.inference.backends.gguf import check_runnable
from atlas.inference.backends.load import load_model
from atlas.params.runtime_support import architecture_of
from atlas.pipeline.gguf_file import read_gguf
from tests.export.models import SHAPES, bundle_of, store

HUGE = 1 << 60
UINT8, UINT32, FLOAT32, STRING, ARRAY = 0, 4, 6, 8, 9


def text(value, size=None):
    data = value.encode()
    return struct.pack("<Q", len(data) if size is None else size) + data


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def tensor(name, shape, kind=0, offset=0, dimensions=None):
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", count, *shape, kind, offset)


def gguf_bytes(entries=(), tensors=(), data=b"", version=3, keys=None, count=None, pad=32):
    """A file whose counts may be wrong."""
    numbers = (
        len(tensors) if count is None else count,
        len(entries) if keys is None else keys,
    )
    head = b"GGUF" + struct.pack("<IQQ", version, *numbers) + b"".join([*entries, *tensors])
    return head + bytes(-len(head) % pad) + data


def array(kind, count, items=b""):
    return struct.pack("<IQ", kind, count) + items


NESTED = array(ARRAY, 1) * 9
DAMAGED = {
    "49 bytes that claim a huge array": gguf_bytes([entry("a", ARRAY, array(UINT8, HUGE))]),
    "a huge array of texts": gguf_bytes([entry("a", ARRAY, array(STRING, HUGE))]),
    "a huge array of arrays": gguf_bytes([entry("a", ARRAY, array(ARRAY, HUGE))]),
    "arrays in arrays": gguf_bytes([entry("a", ARRAY, NESTED + array(UINT8, 0))]),
    "a text beyond the end": gguf_bytes([entry("a", STRING, text("x", HUGE))]),
    "a text in an array beyond the end": gguf_bytes(
        [entry("a", ARRAY, array(STRING, 9, text("x", 1) * 8 + text("x", HUGE)))]
    ),
    "a key beyond the end": gguf_bytes([text("a", HUGE)]),
    "more keys than fit": gguf_bytes(keys=HUGE),
    "more tensors than fit": gguf_bytes(count=HUGE),
    "an unknown type": gguf_bytes([entry("a", 99, b"1234")]),
    "an array of an unknown type": gguf_bytes([entry("a", ARRAY, array(99, 1, b"1234"))]),
    "a key twice": gguf_bytes([entry("a", UINT8, b"1"), entry("a", UINT8, b"2")]),
    "an alignment of 3": gguf_bytes([entry("general.alignment", UINT32, b"\3\0\0\0")]),
    "an alignment of 0": gguf_bytes([entry("general.alignment", UINT32, bytes(4))]),
    "an alignment in letters": gguf_bytes([entry("general.alignment", STRING, text("x"))]),
    "a tensor beyond the end": gguf_bytes(tensors=[tensor("a", [8], offset=1 << 40)]),
    "a tensor cut short": gguf_bytes(tensors=[tensor("a", [8])], data=bytes(31)),
    "a product that overflows": gguf_bytes(tensors=[tensor("a", [1 << 33, 1 << 33])]),
    "an empty tensor": gguf_bytes(tensors=[tensor("a", [0])]),
    "five dimensions": gguf_bytes(tensors=[tensor("a", [1] * 5)]),
    "a billion dimensions": gguf_bytes(tensors=[tensor("a", [1], dimensions=1 << 30)]),
    "an unknown type of tensor": gguf_bytes(tensors=[tensor("a", [8], kind=99)]),
    "rows that are no blocks": gguf_bytes(tensors=[tensor("a", [8], kind=8)], data=bytes(64)),
    "an offset between": gguf_bytes(tensors=[tensor("a", [1], offset=4)], data=bytes(64)),
    "tensors that overlap": gguf_bytes(
        tensors=[tensor("a", [16]), tensor("b", [8], offset=32)], data=bytes(64)
    ),
    "a tensor twice": gguf_bytes(tensors=[tensor("a", [8])] * 2, data=bytes(64)),
    "a name that is too long": gguf_bytes(tensors=[tensor("a" * 64, [8])], data=bytes(32)),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_one_line_at_once(tmp_path, kind):
    path = tmp_path / "x.gguf"
    path.write_bytes(DAMAGED[kind])
    started = time.process_time()
    with pytest.raises(AtlasError, match=r"x\.gguf: damaged, or cut short at") as refused:
        read_gguf(path)
    assert "\n" not in str(refused.value)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("version", [0, 1, 4, 255])
def test_an_unknown_version_is_named(tmp_path, version):
    (tmp_path / "x.gguf").write_bytes(gguf_bytes(version=version))
    with pytest.raises(AtlasError, match=f"version {version} of GGUF"):
        read_gguf(tmp_path / "x.gguf")


def test_arrays_nested_arrays_and_the_other_byte_order_are_read(tmp_path):
    inner = array(UINT8, 3, b"\1\2\3") + array(UINT8, 4, b"\4\5\6\7")
    data = gguf_bytes([entry("a", ARRAY, array(ARRAY, 2, inner)), entry("b", UINT8, b"\7")])
    (tmp_path / "x.gguf").write_bytes(data)
    file = read_gguf(tmp_path / "x.gguf")
    assert (file.get("a"), file.length("a"), file.get("b")) == ([1, 2, 3, 4, 5], 7, 7)
    writer = gguf.GGUFWriter(tmp_path / "b.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_context_length(16)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("t", np.ones((2, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = read_gguf(tmp_path / "b.gguf")
    assert (file.byte_order, file.tensors[0].shape, file.get("llama.context_length")) == (
        "big",
        (4, 2),
        16,
    )
    with pytest.raises(AtlasError, match="its numbers are big-endian"):
        check_runnable(tmp_path / "b.gguf")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.integers(0, 4), st.integers(0, 4))
def test_any_bytes_are_read_or_refused(tmp_path, data, tensors, keys):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + data)
    with suppress(AtlasError):  # no other error
        read_gguf(path)


@pytest.fixture(scope="module")
def file(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("gguf")
    model = store(folder / "model", SHAPES["llama"], tokenizer)
    architecture = architecture_of(model.config.model_dump())
    write_gguf(folder / "m.gguf", bundle_of(folder / "model", tokenizer), architecture, "f32")
    return folder / "m.gguf"


def changed(path, source, key, kind, value):
    """Copy a file with another value for a key, or without it."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", key):
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], inner)
    if value is not None:
        writer.add_key_value(key, value, kind)
    for each in reader.tensors:
        writer.add_tensor(each.name, each.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


UINT, FLOAT, WORD = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.FLOAT32, gguf.GGUFValueType.STRING


@pytest.mark.parametrize(
    ("key", "kind", "value", "message"),
    [
        ("llama.context_length", UINT, 0, "llama.context_length is 0"),
        ("llama.context_length", WORD, "x", "not a language model"),
        ("tokenizer.ggml.tokens", UINT, None, "no tokenizer"),
        ("tokenizer.chat_template", UINT, 7, "chat_template is not a text"),
        # llama.cpp would end the process on these.
        ("llama.expert_count", UINT, 1000, "llama.cpp crashes on it"),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT, -1.0, "llama.cpp crashes on it"),
        ("llama.attention.head_count", UINT, 0, "llama.cpp (crashes on|can't load) it"),
    ],
)
def test_a_file_that_llama_cpp_cannot_run_is_one_line(tmp_path, file, key, kind, value, message):
    path = changed(tmp_path / "x.gguf", file, key, kind, value)
    with pytest.raises(AtlasError, match=message) as refused:
        load_model(path)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_file_that_is_cut_or_overwritten_while_in_use_keeps_running(tmp_path, file):
    path = tmp_path / "m.gguf"
    path.write_bytes(file.read_bytes())
    program = (
        "import sys, os; from pathlib import Path\n"
        "from atlas.inference.backends.load import load_model\n"
        "from atlas.inference.batch import TokenSequence\n"
        "from atlas.inference.sampling import GREEDY\n"
        "path = Path(sys.argv[1]); model = load_model(path)\n"
        "write = lambda: ''.join(model.stream(TokenSequence(model.encode('the'), 9, GREEDY)))\n"
        "before = write(); os.truncate(path, 100); assert write() == before\n"
        "path.write_bytes(bytes(400_000)); assert write() == before\n"
    )
    source = os.environ | {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    result = subprocess.run([sys.executable, "-c", program, path], env=source, timeout=120)
    assert result.returncode not in (-signal.SIGBUS, -signal.SIGSEGV)
    assert result.returncode == 0
