import io
import json
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.params.schema import PreTokenizerName
from atlas.tokens.byte_level import ByteLevelTokenizer
from atlas.tokens.pre_tokenizers import NAMES, PRE_TOKENIZERS
from atlas.tokens.roles import Roles
from atlas.tokens.sentencepiece import SentencePieceTokenizer
from atlas.tokens.tokenizer import END_OF_TEXT, PADDING, Tokenizer
from atlas.tokens.train_tokenizer import (
    MAX_LINE,
    SCORE_STEPS,
    compatibility_warnings,
    draw,
    lines_of,
    make_tokenizer,
    round_trip_losses,
    sample_lines,
    train_tokenizer,
)
from tests.small import mix_of, small_params, text, write_documents


def params(**changes):
    return small_params(**{f"tokenizer.{key}": value for key, value in changes.items()}).tokenizer


def train(texts, **changes) -> Tokenizer:
    documents = [Document("d", "s", each) for each in texts]
    return train_tokenizer(lines_of(documents), params(**changes))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
def test_training_again_gives_the_same_bytes(kind):
    texts = [text(seed) for seed in range(60)]
    size = 90 if kind == "unigram" else 400
    first, second = (train(texts, kind=kind, vocab_size=size) for _ in range(2))
    assert first.model == second.model
    assert first.kind == kind


@pytest.mark.parametrize("pre", get_args(PreTokenizerName))
def test_byte_level_bpe_is_lossless_and_the_same_again(pre):
    texts = [text(seed) + f"\n\n{seed} caf\u00e9" for seed in range(60)]
    changes = {"kind": "byte_bpe", "vocab_size": 380, "pre_tokenizer": pre}
    first, second = (train(texts, **changes) for _ in range(2))
    assert isinstance(first, ByteLevelTokenizer)
    assert (first.content, first.sha256) == (second.content, second.sha256)
    assert (first.vocab_size, first.pre.name) == (380, NAMES[pre])
    for each in (*texts, *NASTY_STRINGS):
        assert first.decode(first.encode(each)) == each
    special = (first.bos, first.eos, first.pad, first.unk, first.end_ids, first.add_bos)
    assert special == (0, 0, 1, None, {0}, False)
    assert first.special_names == {
        "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "pad_token": PADDING
    }  # fmt: skip
    assert not list(compatibility_warnings(first, []))


def test_every_split_can_be_named_in_the_params():
    assert set(PRE_TOKENIZERS) <= set(get_args(PreTokenizerName)) <= set(NAMES)


def test_a_byte_level_piece_may_hold_line_ends():
    tokenizer = train(["one\n\ntwo"] * 99, kind="byte_bpe", vocab_size=262)
    assert "\n\n" in map(tokenizer.piece, range(tokenizer.vocab_size))


def test_byte_level_bpe_names_what_is_wrong():
    with pytest.raises(AtlasError, match=r"vocab_size is 999, but .* at most 26\d pieces: set it"):
        train(["the lamp"], kind="byte_bpe", vocab_size=999)
    with pytest.raises(AtlasError, match="no text to learn from"):
        train([], kind="byte_bpe", vocab_size=999)


def test_composing_is_named_before_training():
    spec = json.loads(train(["the lamp"], kind="byte_bpe", vocab_size=260).content)
    content = json.dumps(spec | {"normalizer": {"type": "NFC"}}).encode()
    roles = Roles(None, END_OF_TEXT, None, None, (END_OF_TEXT,), add_bos=False)
    (warning,) = compatibility_warnings(ByteLevelTokenizer(content, roles), [])
    assert "composes characters" in warning


def test_digits_are_split_or_not():
    texts = ["2026 2027 2026 1999 "] * 50
    assert len(train(texts, vocab_size=268).encode("2026")) == 4
    assert len(train(texts, vocab_size=275, split_digits=False).encode("2026")) < 4


def test_a_character_is_a_token():
    tokenizer = train([text(1)], kind="char")
    assert len(tokenizer.encode("The lamp\nsees a river.")) == 22


def test_a_word_is_a_token():
    tokenizer = train(["Max 3 7 = 7", "Min 2 7 = 2"], kind="word")
    pieces = [tokenizer.piece(identity) for identity in tokenizer.encode("Min 7 3 =")]
    assert pieces == ["\u2581Min", "\u25817", "\u25813", "\u2581="]
    assert tokenizer.vocab_size == 4 + 6


@given(st.lists(st.text("ab\n", max_size=9)))
def test_lines_are_all_of_the_text(texts):
    lines = list(lines_of(Document("d", "s", each) for each in texts))
    assert "".join(lines) == "".join(each + "\n" for each in texts)
    assert all(line.endswith("\n") and "\n" not in line[:-1] for line in lines)


def test_long_lines_are_cut_and_learned_from():
    whole = "xyzzy" * 20_000 + " " + "plugh " * 20_000
    lines = list(lines_of([Document("d", "s", whole)]))
    assert max(map(len, lines)) == MAX_LINE
    assert "".join(lines) == whole + "\n"
    tokenizer = train([whole], vocab_size=280)
    assert any("plugh" in tokenizer.piece(i) for i in range(tokenizer.vocab_size))


def test_words_are_divided_by_any_white_space_in_training_as_in_encoding():
    whole = "a\tb c\u00a0d e\rf " + "hello world " * 1000
    tokenizer = train([whole], kind="word")
    assert tokenizer.unk not in tokenizer.encode(whole)
    pieces = {tokenizer.piece(i).strip("\u2581") for i in range(4, tokenizer.vocab_size)}
    assert pieces == {*"abcdef", "hello", "world"}


def test_lines_are_cut_before_blanks():
    whole = "hello world " * 1000
    lines = list(lines_of([Document("d", "s", whole)]))
    assert "".join(lines) == whole + "\n"
    assert all(line.startswith((" ", "h")) and len(line) <= MAX_LINE for line in lines)
    assert not any(line.endswith("l") for line in lines)


def test_a_line_with_the_mark_of_unknown_is_learned_from():
    tokenizer = train(["the lamp \u2585 sees"] * 40, vocab_size=280)
    assert len(tokenizer.encode("lamp")) < 4


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
def test_odd_characters_do_not_stop_the_training(kind):
    odd = "a\x00b \u2585 \u2581 \t x\ty \ud7ff\uffff \U0010ffff \r\n\x0b\x0c\u2028 \ufeff"
    texts = [f"{text(seed)}\n{odd}\n{odd}{text(seed + 1)}" for seed in range(30)]
    tokenizer = train(texts, kind=kind, vocab_size=60 if kind == "unigram" else 400)
    plain = "the lamp"
    assert tokenizer.decode(tokenizer.encode(plain)) == plain
    if kind in ("bpe", "char"):
        without_mark = odd.replace("\u2581", "")
        assert tokenizer.decode(tokenizer.encode(without_mark)) == without_mark


def test_a_text_of_only_odd_characters():
    tokenizer = train(["\x00\x01\x02" * 50], vocab_size=300, kind="char")
    assert tokenizer.decode(tokenizer.encode("\x00\x02")) == "\x00\x02"


def test_a_sample_is_bounded_seeded_and_even(tmp_path):
    write_documents(
        tmp_path / "train", [Document("d", "s", "x" * 99 + "\n") for _ in range(30_000)]
    )
    every = list(sample_lines(tmp_path / "train", params(sample_megabytes=10)))
    assert sum(map(len, every)) == 101 * 30_000
    first, again, other = (
        list(sample_lines(tmp_path / "train", params(sample_megabytes=1, seed=seed)))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert len(first) != len(other)
    assert 0.6e6 < sum(map(len, first)) < 1e6  # the file is larger than its text

    drawn = list(draw(map(str, range(10_000)), 0.3, 1))
    assert 2800 < len(drawn) < 3200
    assert 1300 < sum(int(line) < 5000 for line in drawn) < 1700
    assert drawn == sorted(drawn, key=int)


def test_scores_of_a_unigram_model_are_exact_in_single_precision():
    tokenizer = train([text(seed) for seed in range(60)], kind="unigram", vocab_size=100)
    scores = [
        tokenizer.processor.get_score(each) * SCORE_STEPS for each in range(tokenizer.vocab_size)
    ]
    assert all(score == round(score) for score in scores)
    assert len(set(scores)) > 50
    assert not tokenizer.user_defined


def test_a_given_model_is_used_unchanged(tmp_path):
    given = train([text(seed) for seed in range(40)], vocab_size=320)
    path = tmp_path / "given.model"
    path.write_bytes(given.model)
    taken = make_tokenizer(tmp_path / "none", params(path=str(path), kind="char"))
    assert (taken.model, taken.kind, taken.vocab_size) == (given.model, "bpe", 320)


def test_a_folder_with_a_model_is_not_ignored(tmp_path):
    write_documents(tmp_path / "train", [Document("d", "s", text(seed)) for seed in range(40)])
    own = tmp_path / "own"
    own.mkdir()
    (own / ".gitkeep").touch()
    trained = make_tokenizer(tmp_path / "train", params(path=str(own), vocab_size=320))
    (own / "x.model").write_bytes(trained.model)
    with pytest.raises(AtlasError, match=r"contains x\.model: give that file \(tokenizer\.path="):
        make_tokenizer(tmp_path / "train", params(path=str(own)))
    trained.save(tmp_path / "saved")
    again = make_tokenizer(tmp_path / "train", params(path=str(tmp_path / "saved")))
    assert again.sha256 == trained.sha256


def test_a_file_whose_roles_are_in_others_is_named(tmp_path, caplog):
    trained = train([text(seed) for seed in range(40)], kind="byte_bpe", vocab_size=320)
    trained.save(tmp_path / "saved")
    make_tokenizer(tmp_path, params(path=str(tmp_path / "saved")))
    assert not caplog.records
    make_tokenizer(tmp_path, params(path=str(tmp_path / "saved" / "tokenizer.json")))
    assert "does not watch tokenizer_config.json next to it" in caplog.text
    assert caplog.text.strip().endswith(f"tokenizer.path={tmp_path / 'saved'}")


def test_a_given_model_of_other_settings(tmp_path):
    """Like Llama's: a space in front, <s> and </s>, no padding."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text(seed) for seed in range(40)), model_writer=model,
        model_type="bpe", vocab_size=330, byte_fallback=True, minloglevel=3,
        normalization_rule_name="identity", remove_extra_whitespaces=False,
    )  # fmt: skip
    tokenizer = SentencePieceTokenizer(model.getvalue())
    processor = SentencePieceProcessor(model_proto=model.getvalue())
    assert (tokenizer.eos, tokenizer.pad) == (2, 2)
    for each in ("The lamp", " two  blanks ", "", "\n", "x" * 50):
        assert tokenizer.encode(each) == processor.encode(each)
        assert tokenizer.decode(tokenizer.encode(each)) == each


def test_a_given_model_without_an_end_is_refused(tmp_path):
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(text(seed) for seed in range(40)), model_writer=model,
        vocab_size=60, eos_id=-1, minloglevel=3, hard_vocab_limit=False,
    )  # fmt: skip
    (tmp_path / "g.model").write_bytes(model.getvalue())
    with pytest.raises(AtlasError, match=r"g\.model: this model has no end-of-sentence piece"):
        make_tokenizer(tmp_path, params(path=str(tmp_path / "g.model")))


def test_round_trip_losses(tokenizer):
    documents = [Document("d", "s", each) for each in ("the lamp", "\u2581", "a\n\nb ")]
    assert round_trip_losses(tokenizer, documents) == 1


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("bpe", 50_000, r"vocab_size is 50000, .* at most \d+ pieces"),
        ("bpe", 266, r"is 266, .* need \d+.* become bytes"),
        ("unigram", 50_000, r"vocab_size is 50000, .* at most \d+ pieces"),
        ("unigram", 10, r"is 10, .* need \d+.* become unknown"),
    ],
)
def test_a_vocabulary_that_does_not_fit_the_text(documents, kind, size, expected):
    with pytest.raises(AtlasError, match=expected):
        train_tokenizer(lines_of(documents), params(kind=kind, vocab_size=size))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_largest_vocabulary_that_is_named_works(documents, kind):
    with pytest.raises(AtlasError) as error:
        train_tokenizer(lines_of(documents), params(kind=kind, vocab_size=50_000))
    largest = int(str(error.value).split("set it to ")[1].split()[0])
    trained = train_tokenizer(lines_of(documents), params(kind=kind, vocab_size=largest))
    assert trained.vocab_size == largest


def test_a_vocabulary_of_words_that_is_too_small_keeps_the_most_frequent():
    tokenizer = train(["a a a b b c"], kind="word", vocab_size=6)
    assert [tokenizer.unk in tokenizer.encode(each) for each in "abc"] == [False, False, True]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
@pytest.mark.parametrize("texts", [[], ["\u2585"]])
def test_no_text_is_an_error(kind, texts):
    with pytest.raises(AtlasError, match=r"the training split has no text|at most 26[0-9] pieces"):
        train(texts, kind=kind)


def test_no_two_pieces_make_the_special_one():
    """llama.cpp would merge them, and read ordinary text as the end of a document."""
    whole = f"<|endof\ntext|>\n{END_OF_TEXT}\n<|endoftext |>\n<| endoftext|>\nendoftext\n"
    trained = train([whole * 500], vocab_size=297)
    pieces = {trained.piece(identity) for identity in range(trained.vocab_size)}
    assert "endoftext" in pieces
    halves = [(END_OF_TEXT[:cut], END_OF_TEXT[cut:]) for cut in range(1, len(END_OF_TEXT))]
    assert not [pair for pair in halves if pieces.issuperset(pair)]
    assert trained.eos not in trained.encode(whole)


EXACT = {
    "byte_fallback": True,
    "vocab_size": 330,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "add_dummy_prefix": False,
}


def user_supplied(kind, **settings):
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=(text(seed) for seed in range(40)), model_writer=model, minloglevel=3,
        model_type=kind, hard_vocab_limit=False, **(EXACT | settings),
    )  # fmt: skip
    return SentencePieceTokenizer(model.getvalue())


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        ("bpe", {}, []),
        ("bpe", {"add_dummy_prefix": True}, []),  # like Llama's
        ("bpe", {"byte_fallback": False, "vocab_size": 60}, ["no pieces for single bytes"]),
        ("char", {"normalization_rule_name": "nmt_nfkc"}, ["normalizes text"]),
        ("bpe", {"remove_extra_whitespaces": True}, ["removes blanks"]),
        (
            "bpe",
            {"add_dummy_prefix": True, "user_defined_symbols": ["<x>"]},
            ["user-defined pieces"],
        ),
        ("bpe", {"user_defined_symbols": ["the lamp"]}, ["pieces with blanks"]),
        ("unigram", {}, ["<unk> where a unigram", "not multiples of 1/256"]),
    ],
)
def test_known_differences_to_llama_cpp_are_reported(kind, settings, expected):
    found = list(compatibility_warnings(user_supplied(kind, **settings), []))
    assert len(found) == len(expected)
    assert all(part in warning for part, warning in zip(expected, found, strict=True))


def test_a_control_piece_that_text_can_become_is_reported():
    spec = ModelProto.FromString(user_supplied("bpe").model)
    normal = {piece.piece for piece in spec.pieces if piece.type == piece.NORMAL}
    piece = next(p for p in spec.pieces if {p.piece[:1], p.piece[1:]} <= normal)
    piece.type = piece.CONTROL
    (warning,) = compatibility_warnings(SentencePieceTokenizer(spec.SerializeToString()), [])
    assert warning.startswith(f"text can merge into its control piece {piece.piece}, ")


@pytest.mark.parametrize("kind", ["bpe", "unigram", "char", "word"])
def test_tokenizers_that_atlas_trains_need_no_warning(documents, kind):
    size = 90 if kind == "unigram" else 400
    tokenizer = train_tokenizer(lines_of(documents), params(kind=kind, vocab_size=size))
    assert not list(compatibility_warnings(tokenizer, [Document("d", "s", "a line")]))
    several = list(compatibility_warnings(tokenizer, [Document("d", "s", "two\nlines")]))
    assert len(several) == (kind == "word")


def test_a_sample_of_a_mix_follows_the_weights(tmp_path):
    lengths = {"stories": 100, "novels": 1000, "modular": 400}
    documents = [
        Document(f"{corpus}{number}", "s", f"{corpus} {number:05d} " + "x" * 85, corpus)
        for corpus, count in lengths.items()
        for number in range(count)
    ]
    write_documents(tmp_path / "train", documents)

    def sample(*mix, **changes):
        lines = list(sample_lines(tmp_path / "train", params(**changes), mix_of(*mix)))
        again = sample_lines(tmp_path / "train", params(**changes), mix_of(*mix))
        assert list(again) == lines
        return {each: sum(line.startswith(each) for line in lines) for each in lengths}

    assert sample("stories", "novels", "modular") == lengths
    weights = {"name": "stories", "weight": 7}, {"name": "novels", "weight": 2}, "modular"
    assert sample(*weights) == {"stories": 700, "novels": 2000, "modular": 400}
    half = sample("stories", {"name": "novels", "weight": 0.5}, "modular")
    assert half["stories"] == 100
    assert 450 < half["novels"] < 550
    shares = [
        {"name": name, "share": share}
        for name, share in zip(lengths, (0.5, 0.25, 0.25), strict=True)
    ]
    drawn = sample(*shares)
    assert drawn["stories"] == pytest.approx(750, rel=0.03)  # of 1,500 lines
    assert drawn["novels"] == pytest.approx(375, rel=0.1)


def test_a_sample_of_a_mix_is_bounded(tmp_path):
    documents = [
        Document("d", "s", "x" * 99, corpus)
        for corpus in ("stories", "novels")
        for _ in range(3000)
    ]
    write_documents(tmp_path / "train", documents)
    mix = mix_of({"name": "stories", "weight": 90}, {"name": "novels", "weight": 10})
    lines = list(sample_lines(tmp_path / "train", params(sample_megabytes=1), mix))
    assert sum(map(len, lines)) == pytest.approx(1e6, rel=0.03)
