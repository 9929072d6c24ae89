import contextlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.errors import AtlasError
from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.tokens import tokenizer as tokenizer_module
from atlas.tokens.sentencepiece import SentencePieceTokenizer
from atlas.tokens.tokenizer import END_OF_TEXT, PADDING, Tokenizer
from atlas.tokens.train_tokenizer import lines_of, train_tokenizer
from tests.small import small_params, text

KINDS = ("bpe", "unigram", "char", "word")
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581"))


@pytest.fixture(scope="session")
def of_kind(documents):
    return {
        kind: train_tokenizer(
            lines_of(documents),
            small_params(**{"tokenizer.kind": kind, "tokenizer.vocab_size": size}).tokenizer,
        )
        for kind, size in zip(KINDS, (400, 100, 400, 400), strict=True)
    }


@pytest.fixture(params=KINDS)
def tokenizer(request, of_kind):
    return of_kind[request.param]


@given(ANY_TEXT)
def test_any_text_round_trips(of_kind, text):
    for kind in ("bpe", "char"):
        assert of_kind[kind].decode(of_kind[kind].encode(text)) == text


@given(st.text(st.sampled_from("the lamp crosses\n.S")))
def test_unigram_is_lossless_within_its_alphabet(of_kind, text):
    tokenizer = of_kind["unigram"]
    ids = tokenizer.encode(text)
    assert tokenizer.unk not in ids
    assert tokenizer.decode(ids) == text


@given(st.lists(st.lists(st.sampled_from(["lamp", "river", "the", "stone"]), min_size=1)))
def test_words_are_lossless_within_their_vocabulary(of_kind, lines):
    tokenizer = of_kind["word"]
    text = "\n".join(" ".join(line) for line in lines)
    ids = tokenizer.encode(text)
    assert len(ids) == sum(map(len, lines)) + max(len(lines) - 1, 0)
    assert tokenizer.decode(ids) == text


@given(st.text())
def test_unknown_characters_and_halves_of_pairs_never_crash(of_kind, text):
    for tokenizer in of_kind.values():
        ids = tokenizer.encode(text)
        assert all(0 <= identity < tokenizer.vocab_size for identity in ids)
        assert not {tokenizer.eos, tokenizer.pad} & set(ids)
        assert isinstance(tokenizer.decode(ids), str)


@pytest.mark.parametrize("text", NASTY_STRINGS)
def test_nasty_strings(of_kind, text):
    for kind in ("bpe", "char"):
        assert of_kind[kind].decode(of_kind[kind].encode(text)) == text
    for kind in ("bpe", "char", "unigram"):
        assert of_kind[kind].encode(text) == of_kind[kind].processor.encode(text)


def test_characters_without_a_piece(of_kind):
    snow = "\u2603"
    assert len(of_kind["bpe"].encode(snow)) == len(of_kind["char"].encode(snow)) == 3
    assert of_kind["unigram"].encode(f"a{snow}{snow}a").count(of_kind["unigram"].unk) == 1
    word = of_kind["word"]
    assert word.encode(f"the lamp{snow} the") == [
        *word.encode("the"),
        word.unk,
        *word.encode("the"),
    ]
    assert word.decode(word.encode(f"the {snow}\nthe")) == "the \ufffd\nthe"
    assert of_kind["unigram"].decode(of_kind["unigram"].encode(f"a{snow}a")) == "a\ufffda"


def test_a_half_of_a_pair_becomes_a_replacement_character(of_kind):
    tokenizer = of_kind["bpe"]
    assert tokenizer.decode(tokenizer.encode("a\ud83d b")) == "a\ufffd b"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "\U0001f600"


def test_special_pieces_are_never_text(tokenizer):
    assert tokenizer.piece(tokenizer.eos) == END_OF_TEXT
    assert tokenizer.piece(tokenizer.pad) == PADDING
    assert tokenizer.bos == tokenizer.eos
    assert len({tokenizer.unk, tokenizer.eos, tokenizer.pad}) == 3
    assert tokenizer.decode([tokenizer.eos, tokenizer.pad]) == ""
    assert not {tokenizer.eos, tokenizer.pad} & set(tokenizer.encode(f"{END_OF_TEXT}{PADDING}"))
    specials = (tokenizer.unk, tokenizer.eos, tokenizer.pad)
    assert not any(tokenizer.is_text(identity) for identity in specials)


def test_line_ends_are_tokens_of_their_own(tokenizer):
    ids = tokenizer.encode("the\n\nlamp")
    assert [tokenizer.piece(identity) for identity in ids].count("\n") == 2


def test_a_batch_is_its_texts(of_kind, tokenizer):
    texts = [text(seed) for seed in range(20)] + ["", "the", ""]
    batch = list(tokenizer.encode_stream(texts))
    assert [ids.tolist() for ids in batch] == [tokenizer.encode(each) for each in texts]
    assert list(tokenizer.encode_stream([])) == []


def test_a_text_of_many_blocks_has_the_same_ids(of_kind, tokenizer, monkeypatch):
    long = "\n".join(text(seed) for seed in range(30)) + "x" * 500
    expected = tokenizer.encode(long)
    monkeypatch.setattr(tokenizer_module, "BLOCK", 200)
    assert len(list(tokenizer.blocks([long]))) > 30
    assert tokenizer.encode(long) == expected


@pytest.mark.slow
@given(
    st.sampled_from(KINDS),
    st.lists(st.text("the lamp\n\0\u2603<")),
    st.booleans(),
    st.sampled_from([1, 7, 99]),
)
def test_texts_come_one_after_the_other(of_kind, kind, texts, with_eos, block):
    tokenizer = of_kind[kind]
    rows = [tokenizer.encode(each) + [tokenizer.eos] * with_eos for each in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_module, "BLOCK", block)
        blocks = list(tokenizer.blocks(texts, with_eos=with_eos))
        assert [ids.tolist() for ids in tokenizer.encode_stream(texts)] == [
            tokenizer.encode(each) for each in texts
        ]
    assert [identity for ids, _ in blocks for identity in ids.tolist()] == list(chain(*rows))
    starts = np.cumsum([0, *(len(ids) for ids, _ in blocks)])
    ends = [
        int(start + end) for start, (_, ends) in zip(starts, blocks, strict=False) for end in ends
    ]
    assert ends == np.cumsum([len(row) for row in rows]).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_too_long_to_encode_at_once_is_refused(of_kind, kind, monkeypatch):
    monkeypatch.setattr(tokenizer_module, "BLOCK", 10)
    monkeypatch.setattr(tokenizer_module, "MAX_UNIT", 40)
    tokenizer = of_kind[kind]
    assert len(list(tokenizer.blocks(["a" * 40 + " b" * 50]))) > 1
    with pytest.raises(AtlasError, match=r"starting at '[xy]+': too long to encode.*break it"):
        list(tokenizer.blocks(["a " + "xy" * 40]))


def test_no_texts_give_no_blocks(tokenizer):
    assert list(tokenizer.blocks([])) == []
    for with_eos in (True, False):
        ((ids, ends),) = tokenizer.blocks(["", ""], with_eos=with_eos)
        assert ids.tolist() == [tokenizer.eos] * 2 * with_eos
        assert ends.tolist() == ([1, 2] if with_eos else [0, 0])


def test_threads_may_share_a_tokenizer(tokenizer):
    texts = [text(seed) for seed in range(40)]
    expected = [tokenizer.encode(each) for each in texts]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert list(pool.map(tokenizer.encode, texts)) == expected
            batches = pool.map(lambda each: list(tokenizer.encode_stream(each)), [texts] * 8)
            assert all([ids.tolist() for ids in batch] == expected for batch in batches)


def test_texts_are_joined_by_their_ends(of_kind):
    tokenizer = of_kind["bpe"]
    ((ids, ends),) = tokenizer.blocks(["the", "", "lamp"], with_eos=True)
    the, lamp = tokenizer.encode("the"), tokenizer.encode("lamp")
    end = tokenizer.eos
    assert ids.tolist() == [*the, end, end, *lamp, end]
    assert np.diff(ends, prepend=0).tolist() == [len(the) + 1, 1, len(lamp) + 1]


def test_saved_and_loaded(tmp_path, of_kind, tokenizer):
    tokenizer.save(tmp_path / "t")
    loaded = Tokenizer.load(tmp_path / "t")
    assert (loaded.kind, loaded.sha256) == (tokenizer.kind, tokenizer.sha256)
    assert loaded.encode("the lamp") == tokenizer.encode("the lamp")
    assert Tokenizer.load(tmp_path / "t/tokenizer.model").sha256 == tokenizer.sha256
    lines = (tmp_path / "t/vocabulary.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == tokenizer.vocab_size
    assert lines[1].startswith(f"1\t{END_OF_TEXT}\t")
    assert lines[3].startswith("3\t\\n\t")


def test_the_vocabulary_can_be_read(of_kind):
    tokenizer = of_kind["bpe"]
    assert tokenizer.escaped(tokenizer.encode("\n")[0]) == "\\n"
    assert tokenizer.escaped(tokenizer.encode(" lamp")[0]).startswith("\u2581")


@given(st.data())
def test_any_damage_to_a_model_is_refused_or_harmless(of_kind, data):
    model = bytearray(of_kind["bpe"].model)
    for _ in range(data.draw(st.integers(1, 3))):
        model[data.draw(st.integers(0, len(model) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(AtlasError):
        assert isinstance(SentencePieceTokenizer(bytes(model)).encode("the lamp"), list)


def test_a_duplicate_piece_is_named(tokenizer):
    spec = ModelProto.FromString(tokenizer.model)
    spec.pieces.append(spec.pieces[-1])
    piece = re.escape(repr(spec.pieces[-1].piece))
    with pytest.raises(AtlasError, match=rf"own\.model: the piece {piece} occurs 2 times"):
        SentencePieceTokenizer(spec.SerializeToString(), "own.model")


def test_a_model_of_words_of_another_kind_is_refused():
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c", "a b"]), model_writer=model, model_type="word",
        vocab_size=6, hard_vocab_limit=False, minloglevel=3,
    )  # fmt: skip
    with pytest.raises(AtlasError, match="Atlas reads only word models that it trained itself"):
        SentencePieceTokenizer(model.getvalue())


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x0a\x00"])
def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(AtlasError, match=r"tokenizer\.model: "):
        Tokenizer.load(tmp_path)
    with pytest.raises(AtlasError, match=r"other\.model: no such tokenizer"):
        Tokenizer.load(tmp_path / "other.model")
