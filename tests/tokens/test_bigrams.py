"""The n-gram baseline."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.tokens.bigrams import BigramCounts
from atlas.tokens.shards import TokenSplit
from tests.small import EOS, write_tokens

SIZE = 7
ids = st.lists(st.integers(3, SIZE - 1), min_size=1, max_size=30)


def counted(folder, documents, **how):
    tokens = write_tokens(folder, {"train": [documents]}, vocab_size=SIZE, **how)
    return BigramCounts.count(TokenSplit(tokens, "train"), 8)


def as_table(pairs):
    table = np.zeros((SIZE, SIZE), np.int64)
    table[pairs.first, pairs.second] = pairs.counts
    return table


def test_the_smoothing_by_hand():
    pairs = BigramCounts(np.array([0, 1, 7]), np.array([2, 1, 4]), 3, 7)  # (0,0) (0,1) (2,1)
    table = np.exp(pairs.bigram_table())
    anywhere = np.array([3, 6, 1]) / 10
    assert pairs.unigram() == pytest.approx(anywhere)
    assert table[0] == pytest.approx((np.array([2, 1, 0]) + 2 * anywhere) / 5)
    assert table[1] == pytest.approx(anywhere)
    assert table[2] == pytest.approx((np.array([0, 4, 0]) + anywhere) / 5)


@settings(max_examples=50, deadline=None)
@given(st.lists(ids, min_size=1, max_size=5))
def test_pairs_are_those_of_the_text_and_every_row_is_a_distribution(tmp_path_factory, documents):
    documents = [[*each, EOS] for each in documents]
    pairs = counted(tmp_path_factory.mktemp("tokens"), documents)
    text = [EOS, *(token for each in documents for token in each)]
    expected = np.zeros((SIZE, SIZE), np.int64)
    for first, second in itertools.pairwise(text):
        expected[first, second] += 1
    assert np.array_equal(as_table(pairs), expected)
    assert pairs.read == len(text) - 1
    table = np.exp(pairs.bigram_table().astype(np.float64))
    assert table.sum(axis=1) == pytest.approx(np.ones(SIZE), abs=1e-5)
    assert (table > 0).all()
    first, second = (each.ravel() for each in np.indices((SIZE, SIZE)))
    losses = pairs.bigram_losses(first, second)
    assert np.exp(-losses).reshape(SIZE, SIZE) == pytest.approx(table, rel=1e-5)
    assert np.exp(-pairs.unigram_losses(np.arange(SIZE))).sum() == pytest.approx(1)


def test_with_questions_only_the_answers_are_counted(tmp_path):
    documents = [[3, 4, 3, 4, 3, 5, EOS], [3, 4, 6, EOS]]
    pairs = counted(tmp_path, documents, windows="padded", separator=4)
    expected = np.zeros((SIZE, SIZE), np.int64)
    for pair in ((4, 3), (3, 4), (4, 3), (3, 5), (5, EOS), (4, 6), (6, EOS)):
        expected[pair] += 1
    assert np.array_equal(as_table(pairs), expected)
    assert pairs.read == 11
