"""Cutting a text changes no id: proved on made-up vocabularies and against sentencepiece."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.tokens.borders import nowhere, whole_words
from atlas.tokens.tokenizer import Tokenizer

LINES = ["abc abd aba", "ab abc bcd", "cab dab  bad", "123 12 1", "\u00e9t\u00e9 ab", "aab bba"] * 9


def trained(kind, **changes):
    """A small model of sentencepiece's own, in almost any set-up."""
    model = io.BytesIO()
    setup = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 3} | changes
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, model_type=kind, **setup
    )
    return model.getvalue()


def borders(model):
    return Tokenizer(model)._words._borders


def cut(safe, text):
    """A text cut at every place that the table calls safe."""
    data = text.encode()
    places = [i for i in range(1, len(data)) if safe[data[i - 1] * 256 + data[i]]]
    ends = zip([0, *places], [*places, len(data)], strict=True)
    return [data[start:end].decode() for start, end in ends]


def test_cuts_are_where_no_piece_reaches_over():
    model = trained(
        "bpe", normalization_rule_name="identity", add_dummy_prefix=False,
        user_defined_symbols=["\n", "ab"], byte_fallback=True, vocab_size=290,
    )  # fmt: skip
    processor = SentencePieceProcessor(model_proto=model)
    safe = borders(model)
    pieces = [
        processor.id_to_piece(i)
        for i in range(processor.vocab_size())
        if not (processor.is_byte(i) or processor.is_control(i) or processor.is_unknown(i))
    ]
    assert "\u2581ab" not in pieces  # a user-defined piece is cut out first
    assert cut(safe, "x\ny") == ["x", "\n", "y"]
    assert "".join(cut(safe, "abc  abd\u00e9")) == "abc  abd\u00e9"
    inside = {p[i : i + 2].replace("\u2581", " ") for p in pieces for i in range(len(p) - 1)}
    for first in "abcd 1\n":
        for second in "abcd 1\n":
            assert safe[ord(first) * 256 + ord(second)] == (first + second not in inside)


def test_no_cut_inside_a_character():
    safe = borders(trained("char"))
    assert not safe.reshape(256, 256)[:, 0x80:0xC0].any()


def test_whole_words_end_at_blanks_and_line_ends():
    assert cut(whole_words(), "Max 3\nMin 4 ") == ["Max", " 3", "\n", "Min", " 4", " "]
    assert not nowhere().any()


SETUPS = {
    "as Atlas trains": {
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
        "allow_whitespace_only_pieces": True,
        "user_defined_symbols": ["\n", "\t"],
    },
    "defaults": {},
    "pieces over blanks": {"split_by_whitespace": False, "add_dummy_prefix": False},
    "blanks behind": {"treat_whitespace_as_suffix": True},
    "user-defined words": {"user_defined_symbols": ["ab", "bc ", "\u2581c"]},
    "extra blanks kept": {"remove_extra_whitespaces": False},
    "extra blanks removed": {"normalization_rule_name": "identity"},
    "blanks behind, identity": {
        "treat_whitespace_as_suffix": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
}
TEXT = st.text(st.sampled_from("abcdx12 \n\t\u00e9\u2603\u65e5\u2581\u00a0\ufb01"), max_size=40)


@pytest.fixture(scope="module")
def models():
    return {
        (kind, name, fallback): trained(
            kind, **setup, byte_fallback=fallback, vocab_size=320 if fallback else 60
        )
        for kind in ("bpe", "unigram", "char")
        for name, setup in SETUPS.items()
        for fallback in (True, False)
    }


@settings(max_examples=300)
@given(st.data())
def test_any_model_gives_the_ids_of_sentencepiece(models, data):
    model = models[data.draw(st.sampled_from(sorted(models)))]
    text = data.draw(TEXT)
    expected = SentencePieceProcessor(model_proto=model).encode(text)
    assert Tokenizer(model).encode(text) == expected


@given(TEXT)
def test_blanks_without_marks(models, text):
    """Such a model writes a blank as a blank, and its mark is a letter like any other."""
    spec = ModelProto.FromString(models["bpe", "as Atlas trains", True])
    spec.normalizer_spec.escape_whitespaces = False
    model = spec.SerializeToString()
    assert Tokenizer(model).encode(text) == SentencePieceProcessor(model_proto=model).encode(text)


def test_unknown_neighbours_stay_one_token(models):
    model = models["unigram", "as Atlas trains", False]
    text = "\u2603\u65e5 \u2603\u2603a\u2603"
    ids = Tokenizer(model).encode(text)
    assert ids == SentencePieceProcessor(model_proto=model).encode(text)
    assert ids.count(0) == 3


def test_pieces_out_of_use_are_not_cut_around(models):
    spec = ModelProto.FromString(models["bpe", "as Atlas trains", True])
    for piece in spec.pieces[-8:-4]:
        piece.type = piece.UNUSED
    model = spec.SerializeToString()
    processor = SentencePieceProcessor(model_proto=model)
    tokenizer = Tokenizer(model)
    for line in LINES[:6]:
        assert tokenizer.encode(line * 3) == processor.encode(line * 3)


def test_the_table_is_not_empty_talk(models):
    """Most borders of words are found, or nothing would be gained."""
    safe = borders(models["bpe", "as Atlas trains", True])
    letters = np.array([ord(letter) for letter in "abcd"])
    assert safe.reshape(256, 256)[letters, ord(" ")].all()
