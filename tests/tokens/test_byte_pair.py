"""The readable byte-pair encoder, compared with sentencepiece."""

import doctest
import io
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from atlas.tokens import byte_pair
from atlas.tokens.byte_pair import BytePairEncoder, join, split_words

WORD = st.text("abcde", min_size=1, max_size=8)
TEXT = st.lists(WORD, min_size=2, max_size=25).map(" ".join)


def sentencepiece(text, merges):
    """Train sentencepiece's BPE without extras on ASCII text."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([text]), model_writer=model, model_type="bpe",
        vocab_size=1 + len(set(text)) + merges, character_coverage=1.0,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=False, bos_id=-1, eos_id=-1, minloglevel=3,
        max_sentencepiece_length=512,
    )  # fmt: skip
    return SentencePieceProcessor(model_proto=model.getvalue())


def as_bytes(piece):
    return piece.replace("\u2581", " ").encode()


def test_the_worked_example_is_true():
    assert doctest.testmod(byte_pair).failed == 0
    assert doctest.testmod(byte_pair).attempted > 4


def test_a_case_done_by_hand():
    encoder = BytePairEncoder.train("aab aab ab", merges=10)
    # "a b" occurs three times, then "a ab" twice; of the remaining two, the shorter comes first
    assert encoder.pieces[256:] == [b"ab", b"aab", b" ab", b" aab"]
    assert [encoder.pieces[token] for token in encoder.encode("aaab ab")] == [b"a", b"aab", b" ab"]


@settings(max_examples=60)
@given(TEXT, st.integers(1, 15), TEXT)
def test_the_merges_and_the_ids_are_those_of_sentencepiece(text, merges, other):
    ours = BytePairEncoder.train(text, merges)
    theirs = sentencepiece(text, len(ours.merges))
    pieces = [theirs.id_to_piece(identity) for identity in range(1, theirs.vocab_size())]
    assert ours.pieces[256:] == [as_bytes(piece) for piece in pieces if len(piece) > 1]
    known = "".join(letter for letter in other if letter in text)
    for each in (text, known):
        expected = [as_bytes(piece) for piece in theirs.encode(each, out_type=str)]
        assert [ours.pieces[token] for token in ours.encode(each)] == expected


@given(st.text(), st.text())
def test_any_text_round_trips(learned, text):
    encoder = BytePairEncoder.train(learned, 20)
    whole = text.encode(errors="replace").decode()
    assert encoder.decode(encoder.encode(whole)) == whole


@given(st.text(" ab\n"))
def test_words_are_all_of_the_text(text):
    assert "".join(split_words(text)) == text
    assert all(" " not in word[1:] for word in split_words(text))


def test_merging_goes_from_left_to_right():
    assert join([1, 1, 1, 2], (1, 1), 9) == [9, 1, 2]
    assert join([], (1, 1), 9) == []


def test_training_ends_when_nothing_is_left():
    encoder = BytePairEncoder.train("abc", merges=100)
    assert encoder.pieces[256:] == [b"ab", b"abc"]
    assert Counter(encoder.pieces).most_common(1)[0][1] == 1
