"""Both encoders give sentencepiece's ids, for any text and almost any model."""

import io
import itertools
import logging
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.tokens import sentencepiece as sentencepiece_module
from atlas.tokens.sentencepiece import (
    WHOLE,
    WORDS,
    GigatokenEncoder,
    SentencePieceTokenizer,
    encode_units,
    gigatoken_supports,
    unit_pattern,
)
from atlas.tokens.tokenizer import END_OF_TEXT, PADDING
from tests.tokens.test_train_tokenizer import train

LINES = ["abc abd aba", "ab abc bcd", "cab dab  bad", "123 12 1", "\u00e9t\u00e9 ab", "aab bba"] * 9


def trained(kind, **changes):
    """Train a small model with sentencepiece, in almost any configuration."""
    model = io.BytesIO()
    setup = {"vocab_size": 60, "hard_vocab_limit": False, "minloglevel": 3} | changes
    SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=model, model_type=kind, **setup
    )
    return model.getvalue()


def edited(model, change):
    """A model after ``change`` to its pieces and settings."""
    spec = ModelProto.FromString(model)
    change(spec)
    return spec.SerializeToString()


def add_piece(piece, kind=ModelProto.SentencePiece.NORMAL):
    def change(spec):
        spec.pieces.add(piece=piece, type=kind, score=-999)

    return change


def give_two_pieces_one_score(spec):
    first, second = [piece for piece in spec.pieces if piece.piece in ("ab", "ba", "bc", "cd")][:2]
    second.score = first.score


def units(model, text):
    return unit_pattern(ModelProto.FromString(model)).findall(text)


def supports(model):
    return gigatoken_supports(ModelProto.FromString(model))


IDENTITY = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
}
AS_ATLAS = IDENTITY | {
    "allow_whitespace_only_pieces": True,
    "user_defined_symbols": ["\n", "\t"],
}
SETUPS = {
    "as Atlas trains": AS_ATLAS,
    "digits kept together": AS_ATLAS | {"split_digits": False},
    "defaults": {},
    "pieces over blanks": {"split_by_whitespace": False, "add_dummy_prefix": False},
    "pieces over blanks, identity": IDENTITY | {"split_by_whitespace": False},
    "blanks behind": {"treat_whitespace_as_suffix": True},
    "user-defined words": {"user_defined_symbols": ["ab", "bc ", "\u2581c"]},
    "user-defined words without blanks": IDENTITY | {"user_defined_symbols": ["ab", "bca"]},
    "user-defined words, blank in front": IDENTITY
    | {"user_defined_symbols": ["ab", "cd"], "add_dummy_prefix": True},
    "extra blanks kept": {"remove_extra_whitespaces": False},
    "extra blanks removed": {"normalization_rule_name": "identity"},
    "blanks behind, identity": {
        "treat_whitespace_as_suffix": True,
        "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False,
    },
}
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>", END_OF_TEXT, PADDING, "<0x41>", "<0x0A>", "<0x00>"]
LETTERS = "abcdx12 \n\t\0\r\u00e9\u2603\u65e5\u2581\u00a0\ufb01\u0301\u2028\ufeff\U0001f600"
PARTS = st.one_of(
    st.sampled_from(LETTERS),
    st.sampled_from(SPECIAL),
    st.sampled_from(["abc", "  ", "\n\n", "<", ">", "ab" * 30, " " * 9, "\u65e5" * 40]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
)
TEXT = st.lists(PARTS, max_size=30).map("".join)


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


@pytest.fixture(scope="module")
def tokenizers(models):
    return {key: SentencePieceTokenizer(model) for key, model in models.items()}


@settings(max_examples=400)
@given(st.data())
def test_any_model_gives_the_ids_of_sentencepiece(tokenizers, data):
    tokenizer = tokenizers[data.draw(st.sampled_from(sorted(tokenizers)))]
    texts = data.draw(st.lists(TEXT, max_size=5))
    expected = tokenizer.processor.encode(texts)
    assert [tokenizer.encode(text) for text in texts] == expected
    assert [ids.tolist() for ids in tokenizer.encode_stream(texts)] == expected


@settings(max_examples=200)
@given(st.sampled_from(["bpe", "char"]), st.lists(TEXT, max_size=5))
def test_gigatoken_gives_the_ids_of_sentencepiece(tokenizers, kind, texts):
    tokenizer = tokenizers[kind, "as Atlas trains", True]
    assert isinstance(tokenizer.bulk_encoder, GigatokenEncoder)
    expected = tokenizer.processor.encode(texts)
    assert [ids.tolist() for ids in tokenizer.encode_stream(texts)] == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab ", min_size=1, max_size=20), min_size=3, max_size=30), st.data())
def test_ties_between_merges_are_broken_as_sentencepiece_does(lines, data):
    """Few letters and many merges: most pieces can be made in several ways."""
    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_writer=model, model_type="bpe", vocab_size=300,
            hard_vocab_limit=False, byte_fallback=True, minloglevel=3, **AS_ATLAS,
        )  # fmt: skip
    except RuntimeError:
        return  # too little text
    tokenizer = SentencePieceTokenizer(model.getvalue())
    assert isinstance(tokenizer.bulk_encoder, GigatokenEncoder)
    texts = [*lines, *data.draw(st.lists(st.text("ab ", max_size=60), min_size=20, max_size=20))]
    expected = tokenizer.processor.encode(texts)
    assert [ids.tolist() for ids in tokenizer.encode_stream(texts)] == expected


def test_special_tokens_in_a_corpus_about_them_are_text():
    """Pieces grow up to the special tokens, and to the names of single bytes."""
    lines = [f"{special} and {special[:-1]} or {special[1:]}" for special in SPECIAL] * 40
    tokenizer = train(lines, vocab_size=325)
    assert isinstance(tokenizer.bulk_encoder, GigatokenEncoder)
    texts = ["".join(pair) for pair in itertools.product(SPECIAL, repeat=2)] + lines
    expected = tokenizer.processor.encode(texts)
    assert [ids.tolist() for ids in tokenizer.encode_stream(texts)] == expected
    assert not {tokenizer.eos, tokenizer.pad, tokenizer.unk} & set(np.concatenate(expected))


def test_which_models_gigatoken_encodes(models):
    fast = {(kind, name) for (kind, name, fallback), model in models.items() if supports(model)}
    assert {kind for kind, _ in fast} == {"bpe", "char"}
    assert ("bpe", "as Atlas trains") in fast
    assert ("bpe", "user-defined words, blank in front") in fast
    assert ("bpe", "user-defined words") not in fast
    assert not any(supports(model) for (*_, fallback), model in models.items() if not fallback)


@pytest.mark.parametrize(
    "change",
    [
        add_piece("x y", ModelProto.SentencePiece.USER_DEFINED),
        add_piece("\u2581xy", ModelProto.SentencePiece.USER_DEFINED),
        add_piece("<0xab>"),
        add_piece("<0x4", ModelProto.SentencePiece.UNUSED),
        give_two_pieces_one_score,
        lambda spec: setattr(spec.normalizer_spec, "escape_whitespaces", False),
    ],
)
def test_models_gigatoken_reads_differently_use_sentencepiece(models, change):
    model = edited(models["bpe", "as Atlas trains", True], change)
    assert not supports(model)
    texts = ["x\0y x y xy <0xab> <0x41> ba", "xaba bab abba", "\u2581xy\u2581 \u2581"]
    expected = SentencePieceProcessor(model_proto=model).encode(texts)
    assert [ids.tolist() for ids in SentencePieceTokenizer(model).encode_stream(texts)] == expected


@given(TEXT)
def test_blanks_without_marks(models, text):
    """Such a model writes a space as a space, and U+2581 is an ordinary character."""
    model = edited(
        models["bpe", "as Atlas trains", True],
        lambda spec: setattr(spec.normalizer_spec, "escape_whitespaces", False),
    )
    assert SentencePieceTokenizer(model).encode(text) == SentencePieceProcessor(
        model_proto=model
    ).encode(text)


def test_unknown_neighbors_stay_one_token(models):
    model = models["unigram", "as Atlas trains", False]
    text = "\u2603\u65e5 \u2603\u2603a\u2603"
    ids = SentencePieceTokenizer(model).encode(text)
    assert ids == SentencePieceProcessor(model_proto=model).encode(text)
    assert ids.count(0) == 3


def test_texts_with_unused_pieces_are_not_split(models):
    spec = ModelProto.FromString(models["bpe", "as Atlas trains", True])
    for piece in spec.pieces[-8:-4]:
        piece.type = piece.UNUSED
    model = spec.SerializeToString()
    assert unit_pattern(spec) == WHOLE
    processor = SentencePieceProcessor(model_proto=model)
    tokenizer = SentencePieceTokenizer(model)
    for line in LINES[:6]:
        assert tokenizer.encode(line * 3) == processor.encode(line * 3)


def test_units_end_where_no_piece_reaches_over(models):
    text = "ab  cd \n\n12"
    fine = models["unigram", "as Atlas trains", True]
    assert units(fine, text) == ["ab", "  cd", " ", "\n", "\n", "12"]
    assert units(edited(fine, add_piece("\n\n")), text) == ["ab", "  cd", " \n\n12"]
    assert units(edited(fine, add_piece("b\u2581c")), text) == ["ab  cd ", "\n", "\n", "12"]
    assert units(edited(fine, add_piece("b\u2581\n")), text) == [text]
    words = train(["Max 3"], kind="word").model
    assert units(words, " Max  3\n Min") == [" Max", " ", " 3", "\n", " Min"]


def test_units_are_all_of_a_text(models):
    patterns = {unit_pattern(ModelProto.FromString(model)) for model in models.values()}

    @given(TEXT)
    def check(text):
        for pattern in patterns:
            assert "".join(pattern.findall(text)) == text

    check()


class Letters:
    """A processor that encodes characters as their codes and records its inputs."""

    def __init__(self):
        self.encoded = []

    def encode(self, units, num_threads):
        self.encoded += units
        return [list(map(ord, unit)) for unit in units]


def test_each_distinct_unit_is_encoded_once():
    letters = Letters()
    ids, lengths = encode_units(letters, WORDS, [" a cat a cat", "", " a dog"])
    assert sorted(letters.encoded) == [" a", " cat", " dog"]
    assert "".join(map(chr, ids)) == " a cat a cat a dog"
    assert lengths.tolist() == [12, 0, 6]


def test_without_gigatoken_the_ids_are_the_same(monkeypatch, caplog):
    model = train(LINES, vocab_size=290).model
    with_gigatoken = [ids.tolist() for ids in SentencePieceTokenizer(model).encode_stream(LINES)]
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    tokenizer = SentencePieceTokenizer(model)
    with caplog.at_level(logging.WARNING, logger=sentencepiece_module.__name__):
        for _ in range(2):
            assert [ids.tolist() for ids in tokenizer.encode_stream(LINES)] == with_gigatoken
    assert len(caplog.records) == 1
    assert "encoding with sentencepiece, which is slower" in caplog.text
