import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.splits import MAX_NGRAMS, NGRAM, mark_seen, sample_modulus, sample_ngrams
from atlas.cleaning.words import distinct, hash_words

texts = st.lists(st.lists(st.sampled_from("ab"), max_size=40).map(" ".join), max_size=5)


def by_hand(texts):
    found = set()
    for text in texts:
        words = text.split()
        found |= {tuple(words[n : n + NGRAM]) for n in range(len(words) - NGRAM + 1)}
    return found


@given(texts, texts)
def test_the_share_seen_is_that_of_comparing_all_runs(held_out, training):
    looked_for = distinct(sample_ngrams(hash_words(held_out), 1))
    seen = np.zeros(len(looked_for), bool)
    mark_seen(looked_for, sample_ngrams(hash_words(training), 1), seen)
    assert len(looked_for) == len(by_hand(held_out))
    assert seen.sum() == len(by_hand(held_out) & by_hand(training))


def test_a_sample_is_the_same_runs_wherever_they_stand():
    words = hash_words([" ".join(f"w{n}" for n in range(50_000))])
    whole = distinct(sample_ngrams(words, 1))
    part = distinct(sample_ngrams(words, 8))
    assert set(part.tolist()) < set(whole.tolist())
    assert 0.11 < len(part) / len(whole) < 0.14


def test_the_sample_fits_whatever_the_size():
    for size in (0, 1000, 4 * MAX_NGRAMS, 4 * MAX_NGRAMS + 8, 10**9, 10**12):
        assert size / 4 / sample_modulus(size) <= MAX_NGRAMS
    assert sample_modulus(4 * MAX_NGRAMS) == 1
    assert sample_modulus(4 * MAX_NGRAMS + 8) == 2
