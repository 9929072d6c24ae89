from gguf import GGUFValueType, GGUFWriter

from atlas.export.gguf.quick_writer import QuickWriter
from atlas.export.gguf.tokenizer import add_tokenizer


def test_it_writes_the_bytes_that_gguf_py_writes(tmp_path, tokenizer):
    for name, kind in (("ours", QuickWriter), ("theirs", GGUFWriter)):
        writer = kind(tmp_path / name, "llama")
        add_tokenizer(writer, tokenizer, add_bos_token=True)
        writer.add_array("some.list", ["a", "b"])
        writer.add_array("some.numbers", [1.5, 2.5])
        writer.add_key_value("some.flags", [True, False], GGUFValueType.ARRAY, GGUFValueType.BOOL)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
