import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.tokens import words
from atlas.tokens.borders import nowhere, whole_words
from atlas.tokens.words import WordEncoder

END = 999


class Letters:
    """Gives a word the codes of its letters, and keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, new):
        self.asked += new
        return [np.frombuffer(word, np.uint8).astype(np.int32) for word in new]


def encode(texts, *, with_end=True, borders=None):
    encoder = WordEncoder(Letters(), whole_words() if borders is None else borders, END)
    blocks = list(encoder.blocks(texts, with_end=with_end))
    ids = [identity for block in blocks for identity in block.ids.tolist()]
    starts = np.cumsum([0, *(len(block.ids) for block in blocks)])
    ends = [
        int(start + end) for start, block in zip(starts, blocks, strict=False) for end in block.ends
    ]
    return ids, ends


@given(st.lists(st.text("ab \n\u00e9").map(str.encode)), st.booleans(), st.sampled_from([1, 7, 99]))
def test_texts_come_one_after_the_other(texts, with_end, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "BLOCK", block)
        patch.setattr(words, "NEAR", 3)
        ids, ends = encode(texts, with_end=with_end)
    expected = [[*text, END] if with_end else list(text) for text in texts]
    assert ids == [identity for row in expected for identity in row]
    assert ends == np.cumsum([len(row) for row in expected]).tolist()


@given(st.lists(st.text("ab c\n", max_size=60).map(str.encode)))
def test_words_are_whole_wherever_a_block_ends(texts):
    encode_words = Letters()
    encoder = WordEncoder(encode_words, whole_words(), END)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "BLOCK", 10)
        patch.setattr(words, "NEAR", 4)
        list(encoder.blocks(texts, with_end=True))
    assert set(encode_words.asked) == {
        word
        for text in texts
        for line in text.replace(b"\n", b"\0\n\0").split(b"\0")
        for word in line.replace(b" ", b"\0 ").split(b"\0")
        if word
    }


def test_each_word_is_asked_once():
    encode_words = Letters()
    encoder = WordEncoder(encode_words, whole_words(), END)
    list(encoder.blocks([b"a cat a cat", b"a dog"], with_end=True))
    list(encoder.blocks([b"a cat a dog"], with_end=False))
    assert encode_words.asked == [b"a", b" cat", b" a", b" dog"]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(words, "MOST_WORDS", 4)
    encode_words = Letters()
    encoder = WordEncoder(encode_words, whole_words(), END)
    for number in range(40):
        (block,) = encoder.blocks([f"a b{number}".encode()], with_end=True)
        assert bytes(block.ids[:-1].tolist()) == f"a b{number}".encode()
        assert len(encoder._known) <= 6
    assert 8 < encode_words.asked.count(b"a") < 20


def test_their_ids_are_bounded_too(monkeypatch):
    monkeypatch.setattr(words, "MOST_IDS", 50)
    encoder = WordEncoder(Letters(), whole_words(), END)
    for number in range(20):
        list(encoder.blocks([str(number).encode() * 20], with_end=False))
        assert len(encoder._ids) < 50 + 40


def test_a_word_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr(words, "BLOCK", 10)
    monkeypatch.setattr(words, "NEAR", 5)
    monkeypatch.setattr(words, "LONGEST_WORD", 40)
    assert encode([b"a" * 30 + b" b"])[0] == [*(b"a" * 30 + b" b"), END]
    with pytest.raises(AtlasError, match=r"from ' xyxyx.*is too long to encode at once: break it"):
        encode([b"a " + b"xy" * 40])


def test_a_text_without_borders_is_one_word():
    ids, ends = encode([b"a b" * 50], borders=nowhere())
    assert ids == [*(b"a b" * 50), END]
    assert ends == [151]


def test_no_texts_give_no_blocks():
    assert encode([]) == ([], [])
    assert encode([b"", b""]) == ([END, END], [1, 2])
    assert encode([b"", b""], with_end=False) == ([], [0, 0])
