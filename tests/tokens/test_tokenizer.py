import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.nasty_strings import NASTY_STRINGS
from atlas.tokens.tokenizer import END_OF_TEXT, Tokenizer
from atlas.tokens.train_tokenizer import measure, train_tokenizer
from tests.small import small_params


def params(**changes):
    return small_params(**{f"tokenizer.{key}": value for key, value in changes.items()}).tokenizer


@pytest.fixture(scope="module")
def char(tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("char") / "tokenizer"
    return train_tokenizer(documents, params(kind="char"), folder)


@pytest.fixture(params=["bpe", "char"])
def any_tokenizer(request, tokenizer, char):
    return {"bpe": tokenizer, "char": char}[request.param]


@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\u2581")))
def test_any_text_comes_back(tokenizer, char, text):
    for one in (tokenizer, char):
        ids = one.encode(text)
        assert one.decode(ids) == text
        assert all(0 <= identity < one.vocab_size for identity in ids)
        assert one.end_of_text not in ids


@pytest.mark.parametrize("text", NASTY_STRINGS)
def test_nasty_strings_come_back(any_tokenizer, text):
    assert any_tokenizer.decode(any_tokenizer.encode(text)) == text


def test_the_special_piece_is_never_text(any_tokenizer):
    assert any_tokenizer.piece(any_tokenizer.end_of_text) == END_OF_TEXT
    assert any_tokenizer.decode([any_tokenizer.end_of_text]) == ""
    assert any_tokenizer.end_of_text not in any_tokenizer.encode(END_OF_TEXT * 3)


def test_line_ends_and_tabs_are_tokens_of_their_own(any_tokenizer):
    ids = any_tokenizer.encode("\n\n\t\n")
    assert [any_tokenizer.piece(identity) for identity in ids] == ["\n", "\n", "\t", "\n"]


def test_digits_are_split(tokenizer):
    assert len(tokenizer.encode("2026")) >= 4


def test_a_character_is_a_token(char):
    text = "The lamp\nsees a river."
    assert len(char.encode(text)) == len(text)


def test_training_again_gives_the_same_bytes(tmp_path, tokenizer, documents):
    again = train_tokenizer(documents, params(), tmp_path / "tokenizer")
    assert again.sha256 == tokenizer.sha256


def test_long_lines_and_words_are_learned_from(tmp_path):
    text = "xyzzy" * 20_000 + " " + "plugh " * 20_000
    trained = train_tokenizer([Document("d", "s", text)], params(vocab_size=280), tmp_path / "t")
    assert any("plugh" in trained.piece(i) for i in range(trained.vocab_size))


def test_bytes_per_token(tokenizer):
    text = "the lamp\n"
    measured = measure(tokenizer, [Document("d", "s", text)])
    assert measured["val_bytes_per_token"] == len(text) / len(tokenizer.encode(text))
    assert measured["val_round_trip_losses"] == 0
    assert measure(tokenizer, [Document("d", "s", "\u2581")])["val_round_trip_losses"] == 1


def test_the_vocabulary_can_be_read(tmp_path, documents):
    trained = train_tokenizer(documents, params(), tmp_path / "t")
    lines = (tmp_path / "t/vocabulary.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == trained.vocab_size
    assert lines[1].startswith(f"1\t{END_OF_TEXT}\t")
    assert lines[2].startswith("2\t\\n\t")


@pytest.mark.parametrize(
    ("size", "expected"),
    [(50_000, r"vocab_size is 50000, .* for \d+ at the most"), (265, r"is 265, .* need \d+")],
)
def test_a_vocabulary_that_does_not_fit_the_text(tmp_path, documents, size, expected):
    with pytest.raises(AtlasError, match=expected):
        train_tokenizer(documents, params(vocab_size=size), tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_the_largest_vocabulary_that_is_named_works(tmp_path, documents):
    with pytest.raises(AtlasError) as error:
        train_tokenizer(documents, params(vocab_size=50_000), tmp_path / "t")
    largest = int(str(error.value).split("set it to ")[1].split()[0])
    assert (
        train_tokenizer(documents, params(vocab_size=largest), tmp_path / "t").vocab_size == largest
    )


def test_no_text_is_an_error(tmp_path):
    with pytest.raises(AtlasError, match="sentencepiece could not train"):
        train_tokenizer([], params(), tmp_path / "t")


def test_no_two_pieces_make_the_special_one(tmp_path):
    """llama.cpp would merge them, and read ordinary text as the end of a document."""
    text = f"<|endof\ntext|>\n{END_OF_TEXT}\n<|endoftext |>\n<| endoftext|>\nendoftext\n"
    document = Document("d", "s", text * 500)
    trained = train_tokenizer([document], params(vocab_size=297), tmp_path / "t")
    pieces = {trained.piece(identity) for identity in range(trained.vocab_size)}
    assert "endoftext" in pieces
    halves = [(END_OF_TEXT[:cut], END_OF_TEXT[cut:]) for cut in range(1, len(END_OF_TEXT))]
    assert not [pair for pair in halves if pieces.issuperset(pair)]
    assert trained.end_of_text not in trained.encode(document.text)


@pytest.mark.parametrize("content", [None, b"", b"no model"])
def test_what_is_no_tokenizer_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(AtlasError, match=r"tokenizer\.model"):
        Tokenizer.load(tmp_path)
