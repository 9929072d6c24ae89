"""The tokenizers library gives the ids and the texts that sentencepiece gives."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from atlas.export.check.nasty_strings import NASTY_STRINGS
from atlas.export.hugging_face import fast_tokenizer
from atlas.tokens.sentencepiece import SentencePieceTokenizer
from atlas.tokens.train_tokenizer import lines_of, train_tokenizer
from tests.small import small_params, text

LETTERS = "ab the \n\t  \u2581é漢😀<|endoftext|>019\u00a0.,_\r"


def pair(tokenizer):
    fast = fast_tokenizer(tokenizer, add_bos_token=False)
    fast.encode_special_tokens = True  # the names of special tokens are ordinary text
    return tokenizer, fast


@pytest.fixture(scope="module", params=["bpe", "char", "unigram"])
def both(request, documents):
    changes = {"tokenizer.kind": request.param, "tokenizer.vocab_size": 400}
    if request.param == "unigram":
        changes["tokenizer.vocab_size"] = 90
    return pair(train_tokenizer(lines_of(documents), small_params(**changes).tokenizer))


@pytest.mark.parametrize("string", NASTY_STRINGS)
def test_nasty_strings_have_the_same_ids(both, string):
    ours, theirs = both
    ids = ours.encode(string)
    assert theirs.encode(string, add_special_tokens=False).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)


@settings(max_examples=200, deadline=None)
@given(
    string=st.text() | st.text(LETTERS) | st.lists(st.sampled_from(["the", "lamp"])).map(" ".join)
)
def test_any_string_has_the_same_ids(both, string):
    ours, theirs = both
    string = string.encode(errors="replace").decode()
    assert theirs.encode(string, add_special_tokens=False).ids == ours.encode(string)


@pytest.mark.parametrize("seed", range(3))
def test_words_have_the_same_ids(documents, seed):
    changes = {"tokenizer.kind": "word", "tokenizer.vocab_size": 200}
    ours, theirs = pair(train_tokenizer(lines_of(documents), small_params(**changes).tokenizer))
    string = "\n" * seed + text(700 + seed).replace(" ", " \t ", 3) + "\n\n  unheard \r of\n" * seed
    ids = ours.encode(string)
    assert theirs.encode(string, add_special_tokens=False).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)


@pytest.fixture(scope="module", params=["nmt_nfkc", "identity"])
def given_model(request, documents):
    """A model as others train it: normalized, with a space in front."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=lines_of(documents),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        normalization_rule_name=request.param,
        minloglevel=2,
    )
    return pair(SentencePieceTokenizer(model.getvalue()))


@pytest.mark.parametrize("string", ["the lamp", "  two  blanks ", "ﬁne １２", "", "é漢"])
def test_models_by_others_have_the_same_ids(given_model, string):
    ours, theirs = given_model
    ids = ours.encode(string)
    assert theirs.encode(string, add_special_tokens=False).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids)
