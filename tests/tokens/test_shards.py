import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.tokens.shards import (
    END_WIDTH,
    GIVEN,
    HEADER,
    ShardWriter,
    SplitIndex,
    TokenIndex,
    TokenSplit,
    id_width,
    open_shard,
    shard_path,
)
from tests.small import EOS, PAD, SHA

DOCUMENTS = ([1, 2, 3], [], [4, 5])


def write(path, documents=DOCUMENTS, vocab_size=1000):
    writer = ShardWriter(path, vocab_size, SHA)
    for ids in documents:
        writer.write(ids, [len(ids)])
    writer.close()
    return path


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 2**31)), max_size=8), st.sampled_from([2**31 + 1]))
def test_ids_and_documents_come_back(tmp_path_factory, documents, vocab_size):
    path = write(tmp_path_factory.mktemp("shards") / "a.bin", documents, vocab_size)
    shard = open_shard(path, sum(map(len, documents)), SHA)
    assert shard.ids.tolist() == [identity for ids in documents for identity in ids]
    assert shard.ends.tolist() == np.cumsum([len(ids) for ids in documents]).tolist()
    starts = [0, *shard.ends[:-1].tolist()]
    back = [shard.ids[a:b].tolist() for a, b in zip(starts, shard.ends.tolist(), strict=False)]
    assert back == documents


def test_many_documents_and_none_at_once(tmp_path):
    writer = ShardWriter(tmp_path / "a.bin", 1000, SHA)
    writer.write([1, 2, 3], [1, 3])
    writer.write([4, 5], [])  # the beginning of a long document
    writer.write([6], [1])
    writer.close()
    shard = open_shard(tmp_path / "a.bin", 6, SHA)
    assert shard.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert shard.ends.tolist() == [1, 3, 6]
    assert (writer.tokens, writer.documents) == (6, 3)


@pytest.mark.parametrize(("vocab_size", "width"), [(65_536, 2), (65_537, 4)])
def test_the_width_follows_the_vocabulary(tmp_path, vocab_size, width):
    write(tmp_path / "a.bin", [[0, vocab_size - 1]], vocab_size)
    ids = open_shard(tmp_path / "a.bin", 2, SHA).ids
    assert ids.dtype.itemsize == width == id_width(vocab_size)
    assert list(ids) == [0, vocab_size - 1]


def test_the_file_is_as_documented(tmp_path):
    raw = write(tmp_path / "a.bin").read_bytes()
    assert HEADER.size == 80
    assert raw[:8] == b"ATLASTOK"
    assert np.frombuffer(raw[8:16], "<u4").tolist() == [3, 2]
    assert np.frombuffer(raw[16:32], "<u8").tolist() == [5, 3]
    assert raw[32:64].hex() == SHA
    assert np.frombuffer(raw[80:90], "<u2").tolist() == [1, 2, 3, 4, 5]
    assert raw[90:96] == bytes(6)
    assert np.frombuffer(raw[96:], "<u8").tolist() == [3, 3, 5]
    assert len(raw) == 96 + 3 * END_WIDTH
    assert np.frombuffer(raw[68:72], "<u4").tolist() == [0]
    writer = ShardWriter(tmp_path / "b.bin", 1000, SHA)
    writer.write([1, 2, 3, 4, 5], [5], np.array([True, True, False, False, True]))
    writer.close()
    raw = (tmp_path / "b.bin").read_bytes()
    assert np.frombuffer(raw[68:72], "<u4").tolist() == [1]
    assert raw[104:] == b"\x13"


TOKENS = st.lists(st.tuples(st.integers(3, 99), st.booleans()), max_size=20)


@settings(max_examples=50)
@given(st.lists(st.lists(TOKENS, max_size=4), min_size=1, max_size=4), st.data())
def test_what_is_given_comes_back(tmp_path_factory, shards, data):
    """Shards of documents of ids, each with True if it is given."""
    folder = tmp_path_factory.mktemp("shards")
    sizes, documents = [], 0
    for number, shard in enumerate(shards):
        writer = ShardWriter(shard_path(folder, "train", number), 100, SHA)
        for tokens in shard:
            flags = np.array([flag for _, flag in tokens], np.bool_)
            writer.write([each for each, _ in tokens], [len(tokens)], flags)
        writer.close()
        sizes.append(writer.tokens)
        documents += writer.documents
    entries = {"train": SplitIndex(sizes, documents, 0)}
    TokenIndex(100, EOS, PAD, None, SHA, "packed", entries).write(folder)
    split = TokenSplit(folder, "train")
    expected = [each for shard in shards for tokens in shard for each in tokens]
    start = data.draw(st.integers(0, len(expected)))
    stop = data.draw(st.integers(start, len(expected)))
    assert split.given(start, stop).tolist() == [flag for _, flag in expected[start:stop]]
    flagged = [each + flag * GIVEN for each, flag in expected[start:stop]]
    assert split.read_flagged(start, stop).tolist() == flagged
    assert split.has_given == any(flag for _, flag in expected)  # else bits per byte are lost


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda raw: raw[:-1], "cut short"),
        (lambda raw: raw + b"xx", "cut short"),
        (lambda raw: raw[:20], "not a token shard"),
        (lambda raw: b"", "not a token shard"),
        (lambda raw: b"X" + raw[1:], "not a token shard"),
        (
            lambda raw: raw[:8] + b"\x09" + raw[9:],
            "version 9 with 2 bytes per id, but this program",
        ),
        (lambda raw: raw[:40] + b"X" + raw[41:], "a tokenizer other than"),
    ],
)
def test_damage_is_named(tmp_path, damage, expected):
    path = write(tmp_path / "a.bin")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AtlasError, match=expected) as error:
        open_shard(path, 5, SHA)
    assert str(path) in str(error.value)
    assert "dvc repro -f tokenize" in str(error.value)


@settings(max_examples=200)
@given(st.integers(0, 8 * (96 + 24) - 1))
def test_any_flipped_bit_is_noticed(tmp_path_factory, bit):
    path = write(tmp_path_factory.mktemp("flip") / "a.bin")
    raw = bytearray(path.read_bytes())
    raw[bit // 8] ^= 1 << bit % 8
    path.write_bytes(raw)
    with pytest.raises(AtlasError, match=r"a\.bin: .*`dvc repro -f tokenize` writes it again"):
        open_shard(path, 5, SHA)


def test_a_number_of_ids_that_differs_from_the_index(tmp_path):
    with pytest.raises(AtlasError, match="with 5 tokens, expected 120 with 6"):
        open_shard(write(tmp_path / "a.bin"), 6, SHA)


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(AtlasError, match="no such token shard"):
        open_shard(tmp_path / "train-00000.bin", 3, SHA)
