import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.tokens.shards import HEADER, ShardWriter, open_shard, shard_path, width_of

SHA = "ab" * 32


def write(folder, documents, vocab_size=1000, shard_tokens=1000):
    writer = ShardWriter(folder, "train", vocab_size, SHA, shard_tokens)
    for ids in documents:
        writer.write(ids)
    writer.close()
    return writer.counts


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 2**31)), max_size=8), st.integers(1, 7))
def test_ids_come_back_over_any_number_of_shards(tmp_path_factory, documents, shard_tokens):
    folder = tmp_path_factory.mktemp("shards")
    counts = write(folder, documents, 2**32, shard_tokens)
    ids = [id_ for document in documents for id_ in document]
    back = [
        open_shard(shard_path(folder, "train", number), count, SHA)
        for number, count in enumerate(counts)
        if count
    ]
    assert [int(id_) for shard in back for id_ in shard] == ids
    assert max(counts) <= shard_tokens


@pytest.mark.parametrize(("vocab_size", "width"), [(65_536, 2), (65_537, 4)])
def test_the_width_follows_the_vocabulary(tmp_path, vocab_size, width):
    write(tmp_path, [[0, vocab_size - 1]], vocab_size)
    ids = open_shard(shard_path(tmp_path, "train", 0), 2, SHA)
    assert ids.dtype.itemsize == width == width_of(vocab_size)
    assert list(ids) == [0, vocab_size - 1]


def test_the_header_is_as_documented(tmp_path):
    write(tmp_path, [[1, 2, 3]])
    raw = shard_path(tmp_path, "train", 0).read_bytes()
    assert HEADER.size == 64
    assert raw[:8] == b"ATLASTOK"
    assert np.frombuffer(raw[8:16], "<u4").tolist() == [1, 2]
    assert int.from_bytes(raw[16:24], "little") == 3
    assert raw[24:56].hex() == SHA
    assert np.frombuffer(raw[64:], "<u2").tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda raw: raw[:-1], "cut short"),
        (lambda raw: raw + b"xx", "cut short"),
        (lambda raw: raw[:20], "not a token shard"),
        (lambda raw: b"", "not a token shard"),
        (lambda raw: b"X" + raw[1:], "not a token shard"),
        (lambda raw: raw[:8] + b"\x09" + raw[9:], "version 9"),
        (lambda raw: raw[:30] + b"X" + raw[31:], "another tokenizer"),
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "damaged"),
    ],
)
def test_damage_is_named(tmp_path, damage, expected):
    write(tmp_path, [[1, 2, 3]])
    path = shard_path(tmp_path, "train", 0)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AtlasError, match=expected) as error:
        open_shard(path, 3, SHA)
    assert str(path) in str(error.value)
    assert "dvc repro -f tokenize" in str(error.value)


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(AtlasError, match="no such token shard"):
        open_shard(tmp_path / "train-00000.bin", 3, SHA)
