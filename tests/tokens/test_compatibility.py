import io

import pytest
from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.cleaning.documents import Document
from atlas.tokens.compatibility import doubts
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.train_tokenizer import lines_of, train_tokenizer
from tests.small import small_params, text

EXACT = {
    "byte_fallback": True,
    "vocab_size": 330,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
}


def given(kind, **settings):
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=(text(seed) for seed in range(40)), model_writer=model, minloglevel=3,
        model_type=kind, hard_vocab_limit=False, **(EXACT | settings),
    )  # fmt: skip
    return Tokenizer(model.getvalue())


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("bpe", {}, []),
        ("bpe", {"add_dummy_prefix": True}, []),  # as Llama's
        ("bpe", {"byte_fallback": False, "vocab_size": 60}, ["no pieces for single bytes"]),
        ("char", {"normalization_rule_name": "nmt_nfkc"}, ["normalises text"]),
        ("bpe", {"remove_extra_whitespaces": True}, ["removes blanks"]),
        (
            "bpe",
            {"add_dummy_prefix": True, "user_defined_symbols": ["<x>"]},
            ["user-defined pieces"],
        ),
        ("bpe", {"user_defined_symbols": ["the lamp"]}, ["pieces with blanks"]),
        ("unigram", {}, ["<unk> where a unigram", "no multiples of 1/256"]),
    ],
)
def test_what_is_known_to_differ_is_told(kind, settings, expected):
    found = list(doubts(given(kind, **settings), []))
    assert len(found) == len(expected)
    assert all(part in doubt for part, doubt in zip(expected, found, strict=True))


def test_a_control_piece_that_text_can_become_is_told():
    spec = ModelProto.FromString(given("bpe").model)
    normal = {piece.piece for piece in spec.pieces if piece.type == piece.NORMAL}
    piece = next(p for p in spec.pieces if {p.piece[:1], p.piece[1:]} <= normal)
    piece.type = piece.CONTROL
    (doubt,) = doubts(Tokenizer(spec.SerializeToString()), [])
    assert doubt.startswith(f"text can be merged to its control piece {piece.piece}, ")


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
def test_what_atlas_trains_leaves_no_doubt(documents, kind):
    params = small_params(
        **{"tokenizer.kind": kind, "tokenizer.vocab_size": 90 if kind == "unigram" else 400}
    )
    tokenizer = train_tokenizer(lines_of(documents), params.tokenizer)
    assert not list(doubts(tokenizer, [Document("d", "s", "a line")]))
    several = list(doubts(tokenizer, [Document("d", "s", "two\nlines")]))
    assert len(several) == (kind == "word")
