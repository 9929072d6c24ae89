"""The Fourier spectrum of an embedding of numbers."""

import itertools

import numpy as np
import pytest

from atlas.evaluation.spectrum import (
    in_circle,
    is_modular,
    number_ids,
    peak_share,
    spectrum,
)
from atlas.tokens.train_tokenizer import train_tokenizer
from tests.small import small_params


def circle(numbers, frequency, size=8, seed=0):
    """Numbers on a circle in a random plane, which they go round ``frequency`` times."""
    angles = 2 * np.pi * frequency * np.arange(numbers) / numbers
    plane = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, 2)))[0]
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T


@pytest.mark.parametrize("numbers", [13, 16, 97])
def test_a_circle_is_one_frequency(numbers):
    table = spectrum(circle(numbers, 5) + 3.0)
    assert table["frequency"].tolist() == list(range(1, numbers // 2 + 1))
    assert table["share"][4] == pytest.approx(1)


def test_two_circles_share_the_power_by_their_squares():
    table = spectrum(circle(97, 5) + 2 * circle(97, 9, seed=1))
    assert table["share"][4] == pytest.approx(1 / 5, abs=0.15)
    assert table["share"][[4, 8]].sum() == pytest.approx(1)
    assert peak_share(table) == pytest.approx(1)


@pytest.mark.parametrize("numbers", [96, 97])
def test_noise_has_all_frequencies_alike(numbers):
    table = spectrum(np.random.default_rng(0).normal(size=(numbers, 512)))
    assert table["share"].sum() == pytest.approx(1)
    assert peak_share(table) < 0.25


def test_products_go_round_in_the_order_of_their_logarithms():
    assert in_circle(7, "add") == [0, 1, 2, 3, 4, 5, 6]
    assert in_circle(7, "multiply") == [1, 3, 2, 6, 4, 5]
    assert in_circle(8, "multiply") == list(range(8))  # nothing generates all
    assert in_circle(6, "multiply") == list(range(6))
    assert in_circle(12, "divide") == list(range(12))
    order = in_circle(97, "divide")
    assert sorted(order) == list(range(1, 97))
    assert all(b == a * order[1] % 97 for a, b in itertools.pairwise(order))


def numbers_of(kind, text):
    params = small_params(**{"tokenizer.kind": kind, "tokenizer.vocab_size": 300}).tokenizer
    tokenizer = train_tokenizer([text], params)
    return tokenizer, number_ids(tokenizer, [text])


def test_numbers_are_those_of_the_text_if_each_is_a_token():
    text = " ".join(f"{n} + {n} =" for n in range(12))
    tokenizer, ids = numbers_of("word", text)
    assert ids == [tokenizer.encode(str(n))[0] for n in range(12)]
    assert len(set(ids)) == 12
    assert numbers_of("char", text)[1] == []
    assert numbers_of("word", text.replace("7 + 7 =", ""))[1] == []
    assert numbers_of("word", "0 1 2 =")[1] == []
    assert numbers_of("word", "a b =")[1] == []


def test_one_operation_is_modular_arithmetic():
    assert is_modular(["add", "add"])
    assert not is_modular(["add", "multiply"])
    assert not is_modular(["Max"])
    assert not is_modular([])
