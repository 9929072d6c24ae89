import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning import words
from atlas.cleaning.words import distinct, hash_shingles, hash_words, jaccard, ngrams

texts = st.lists(st.text(st.sampled_from("ab \nÄß_9'\u00a0\u2019\u0307É\ud800.")), max_size=6)
scripts = st.lists(
    st.text(st.sampled_from("ab \n-é\u0301中かक\u094dก\u0e31س\u064b한१")), max_size=6
)


def expected_words(text):
    """The definition with the standard library: words with marks, or a character with marks."""
    marks = "\u0301\u0307\u064b\u094d\u0e31"
    return re.findall(f"[中かก][{marks}]*|[^\\W中かก](?:[^\\W中かก]|[{marks}])*", text.lower())


@pytest.mark.parametrize("texts", [texts, scripts])
@given(st.data())
def test_words_match_the_regular_expression(texts, data):
    texts = data.draw(texts)
    found = hash_words(texts)
    expected = [word for text in texts for word in expected_words(text)]
    assert [found[n] for n in range(len(found.hashes))] == expected
    assert found.counts.tolist() == [len(expected_words(text)) for text in texts]
    assert len(set(found.hashes.tolist())) == len(set(expected))
    assert len(set(zip(expected, found.hashes.tolist(), strict=True))) == len(set(expected))


@pytest.mark.parametrize("texts", [texts, scripts])
@given(st.data())
def test_segment_borders_change_nothing(texts, data):
    texts = data.draw(texts)
    whole = hash_words(texts)
    words.SEGMENT, old = 32, words.SEGMENT
    try:
        cut = hash_words(texts * 9)
    finally:
        words.SEGMENT = old
    assert cut.hashes.tolist() == whole.hashes.tolist() * 9


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("हिन्दी में शब्द", ["हिन्दी", "में", "शब्द"]),
        ("বাংলা ভাষা", ["বাংলা", "ভাষা"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("مُحَمَّد می\u200cروم", ["مُحَمَّد", "می\u200cروم"]),
        ("ภาษาไทย น้ำ ๒๕", [*"ภาษาไทย", "น้ำ", "๒๕"]),
        ("ខ្មែរ မြန်မာ", ["ខ្", "មែ", "រ", "မြ", "န်", "မာ"]),
        ("中文Word混排、カタカナ", [*"中文", "word", *"混排カタカナ"]),
        ("Donau\u00addampf don't \u0301 ΟΔΟΣ", ["donau\u00addampf", "don", "t", "οδος"]),
    ],
)
def test_words_of_many_scripts(text, expected):
    found = hash_words([text])
    assert [found[n] for n in range(len(found.hashes))] == expected


def test_case_and_the_form_of_a_sigma_do_not_matter():
    assert hash_words(["ÉCOLE ΟΔΟΣ"]).hashes.tolist() == hash_words(["école οδος"]).hashes.tolist()


def test_shingles_are_words_in_alphabets_and_letters_elsewhere():
    counts = hash_shingles(
        ["one two three four five six", "слово " * 6, "हिन्दी में", "中文word"], 5, 6
    )
    assert counts.counts.tolist() == [2, 2, 4, 0]
    joined, spaced = (
        hash_shingles([text], 5, 6).hashes for text in ("中文文字混排", "中文 文字、混排")
    )
    assert joined.tolist() == spaced.tolist()
    mixed = hash_shingles(["one two three four five", "中文 a b c d e f"], 5, 6)
    assert mixed.counts.tolist() == [1, 4]


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
