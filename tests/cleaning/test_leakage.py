import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.splitting import MOST_RUNS, RUN, mark, sampled_runs, sampling
from atlas.cleaning.words import distinct, hash_words

texts = st.lists(st.lists(st.sampled_from("ab"), max_size=40).map(" ".join), max_size=5)


def by_hand(texts):
    found = set()
    for text in texts:
        words = text.split()
        found |= {tuple(words[n : n + RUN]) for n in range(len(words) - RUN + 1)}
    return found


@given(texts, texts)
def test_the_share_seen_is_that_of_comparing_all_runs(held_out, training):
    looked_for = distinct(sampled_runs(hash_words(held_out), 1))
    seen = np.zeros(len(looked_for), bool)
    mark(looked_for, sampled_runs(hash_words(training), 1), seen)
    assert len(looked_for) == len(by_hand(held_out))
    assert seen.sum() == len(by_hand(held_out) & by_hand(training))


def test_a_sample_is_the_same_runs_wherever_they_stand():
    words = hash_words([" ".join(f"w{n}" for n in range(50_000))])
    whole = distinct(sampled_runs(words, 1))
    part = distinct(sampled_runs(words, 8))
    assert set(part.tolist()) < set(whole.tolist())
    assert 0.11 < len(part) / len(whole) < 0.14


def test_the_sample_fits_whatever_the_size():
    for size in (0, 1000, 4 * MOST_RUNS, 4 * MOST_RUNS + 8, 10**9, 10**12):
        assert size / 4 / sampling(size) <= MOST_RUNS
    assert sampling(4 * MOST_RUNS) == 1
    assert sampling(4 * MOST_RUNS + 8) == 2
