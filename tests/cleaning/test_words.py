import re
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning import words
from atlas.cleaning.words import distinct, hash_words, jaccard, ngrams

texts = st.lists(st.text(st.sampled_from("ab \nÄß_9'\u00a0\u2019\u0307İ中\ud800.")), max_size=6)


def expected_words(text):
    """The definition with the standard library; lone surrogates are not words."""
    return re.findall(r"\w+", text.lower())


@given(texts)
def test_words_match_the_regular_expression(texts):
    found = hash_words(texts)
    expected = [word for text in texts for word in expected_words(text)]
    assert [found[n] for n in range(len(found.hashes))] == expected
    assert found.counts.tolist() == [len(expected_words(text)) for text in texts]
    assert len(set(found.hashes.tolist())) == len(set(expected))
    assert len(set(zip(expected, found.hashes.tolist(), strict=True))) == len(set(expected))


@given(texts)
def test_segment_borders_change_nothing(texts):
    whole = hash_words(texts)
    old = words.SEGMENT, words.MAX_WORD
    words.SEGMENT, words.MAX_WORD = 64, 32
    try:
        cut = hash_words(texts * 9)
    finally:
        words.SEGMENT, words.MAX_WORD = old
    assert cut.hashes.tolist() == whole.hashes.tolist() * 9


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=6), st.integers(1, 4))
def test_ngrams_stay_within_a_text(texts, length):
    found = ngrams(hash_words([" ".join(text) for text in texts]), length)
    expected = [
        [tuple(text[n : n + length]) for n in range(len(text) - length + 1)] for text in texts
    ]
    assert found.counts.tolist() == [len(text) for text in expected]
    flat = [run for text in expected for run in text]
    hashes = found.hashes.tolist()
    assert len(set(zip(flat, hashes, strict=True))) == len(set(flat)) == len(set(hashes))


def test_the_order_of_words_in_an_ngram_matters():
    first, second = (ngrams(hash_words([text]), 2).hashes[0] for text in ("one two", "two one"))
    assert first != second


sets = st.sets(st.integers(0, 30))


@given(sets, sets)
def test_jaccard_matches_the_definition(first, second):
    found = jaccard(*(np.array(sorted(s), np.uint64) for s in (first, second)))
    assert found == (len(first & second) / len(first | second) if first | second else 0)


@given(st.lists(st.integers(0, 9)))
def test_distinct_is_sorted_and_unique(values):
    assert distinct(np.array(values, np.uint64)).tolist() == sorted(set(values))


def test_word_hashes_look_random():
    found = hash_words([" ".join(f"word{n}" for n in range(200_000))]).hashes
    assert len(distinct(found)) == 200_000
    ordered = np.sort(found)
    assert all(a < b for a, b in pairwise(ordered[:1000].tolist()))
    bits = [(found >> np.uint64(bit) & np.uint64(1)).mean() for bit in range(64)]
    assert max(abs(share - 0.5) for share in map(float, bits)) < 0.01
