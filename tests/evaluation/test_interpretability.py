"""Plots and tables of models of text and arithmetic, and the spectrum of numbers."""

import itertools
from dataclasses import replace
from string import ascii_lowercase

import numpy as np
import pandas as pd
import pytest

from atlas.evaluation.interpretability import (
    POSITIONAL,
    circle_order,
    inspect_model,
    is_modular,
    number_ids,
    peak_share,
    spectrum,
)
from atlas.tokens.train_tokenizer import train_tokenizer
from tests.evaluation.evaluators import train_arithmetic
from tests.small import small_params

VALIDATIONS = pd.DataFrame({"step": [1], "loss": [1.0], "accuracy": [0.5], "weight_norm": [1.0]})


@pytest.fixture(scope="module")
def positional(tmp_path_factory):
    """An evaluator of a model that has learned First, Second and Last."""
    folder = tmp_path_factory.mktemp("positional")
    return train_arithmetic(folder, list(POSITIONAL), examples=900, steps=250)


def test_plots_and_tables_of_a_model_of_text(evaluator, tmp_path):
    assert inspect_model(evaluator, VALIDATIONS, tmp_path, tmp_path) == {}
    names = {path.name for path in tmp_path.iterdir()}
    maps = {f"attention-{number}.png" for number in (1, 2)}  # one per prompt
    assert names == {"dynamics.png", "heads.csv", "heads.png"} | maps


def test_one_token_has_no_attention_map(evaluator, tmp_path):
    """It attends to itself alone. The others keep the numbers of their prompts."""
    single = next(each for each in ascii_lowercase if len(evaluator.tokenizer.encode(each)) == 1)
    prompts = {"attention_prompts": (single, "the lamp sees a stone")}
    short = replace(evaluator, params=evaluator.params.model_copy(update=prompts))
    no_steps = VALIDATIONS.assign(step=0)
    inspect_model(short, no_steps, tmp_path, tmp_path)
    assert {path.name for path in tmp_path.glob("*.png")} == {"attention-2.png", "heads.png"}


@pytest.mark.slow
def test_the_trained_model_answers_new_questions(positional):
    assert positional.metrics("test", positional.score("test"))["accuracy"] > 0.95


@pytest.mark.slow
def test_at_the_answer_a_head_attends_to_the_requested_digit(positional, tmp_path):
    metrics = inspect_model(positional, VALIDATIONS, tmp_path, tmp_path)
    table = pd.read_csv(tmp_path / "digits.csv").set_index("operation")
    assert set(table.index) == set(POSITIONAL)
    assert (table["found"] >= 0.9).all(), table
    assert (table["weight"] > table["others"]).all(), table
    assert metrics["attention_first_found"] == pytest.approx(table["found"]["First"])
    names = {path.name for path in tmp_path.glob("*.png")}
    assert {"attention-1.png", "attention-3.png", "heads.png", "dynamics.png"} <= names


@pytest.mark.slow
def test_without_positional_operations_there_is_no_table_of_digits(tmp_path):
    other = train_arithmetic(tmp_path / "trained", ["Max", "Min"], examples=60, steps=6)
    assert inspect_model(other, VALIDATIONS, tmp_path, tmp_path) == {}
    assert (tmp_path / "heads.csv").is_file()
    assert not (tmp_path / "digits.csv").exists()


def circle(numbers, frequency, size=8, seed=0):
    """Embed numbers ``frequency`` times around a circle in a random plane."""
    angles = 2 * np.pi * frequency * np.arange(numbers) / numbers
    plane = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, 2)))[0]
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T


@pytest.mark.parametrize("numbers", [13, 16, 97])
def test_a_circle_is_one_frequency(numbers):
    table = spectrum(circle(numbers, 5) + 3.0)
    assert table["frequency"].tolist() == list(range(1, numbers // 2 + 1))
    assert table["share"][4] == pytest.approx(1)


def test_two_circles_share_the_power_by_their_squared_radii():
    table = spectrum(circle(97, 5) + 2 * circle(97, 9, seed=1))
    assert table["share"][4] == pytest.approx(1 / 5, abs=0.15)
    assert table["share"][[4, 8]].sum() == pytest.approx(1)
    assert peak_share(table) == pytest.approx(1)


@pytest.mark.parametrize("numbers", [96, 97])
def test_noise_spreads_its_power_over_all_frequencies(numbers):
    table = spectrum(np.random.default_rng(0).normal(size=(numbers, 512)))
    assert table["share"].sum() == pytest.approx(1)
    assert peak_share(table) < 0.25


def test_products_are_ordered_by_discrete_logarithm():
    assert circle_order(7, "add") == [0, 1, 2, 3, 4, 5, 6]
    assert circle_order(7, "multiply") == [1, 3, 2, 6, 4, 5]
    assert circle_order(8, "multiply") == list(range(8))  # no generator
    assert circle_order(6, "multiply") == list(range(6))
    assert circle_order(12, "divide") == list(range(12))
    order = circle_order(97, "divide")
    assert sorted(order) == list(range(1, 97))
    assert all(b == a * order[1] % 97 for a, b in itertools.pairwise(order))


def encode_numbers(kind, text):
    params = small_params(**{"tokenizer.kind": kind, "tokenizer.vocab_size": 300}).tokenizer
    tokenizer = train_tokenizer([text], params)
    return tokenizer, number_ids(tokenizer, [text])


def test_numbers_of_the_text_need_a_token_each():
    text = " ".join(f"{n} + {n} =" for n in range(12))
    tokenizer, ids = encode_numbers("word", text)
    assert ids == [tokenizer.encode(str(n))[0] for n in range(12)]
    assert len(set(ids)) == 12
    assert encode_numbers("char", text)[1] == []
    assert encode_numbers("word", text.replace("7 + 7 =", ""))[1] == []
    assert encode_numbers("word", "0 1 2 =")[1] == []
    assert encode_numbers("word", "a b =")[1] == []


def test_modular_arithmetic_has_one_operation():
    assert is_modular(["add", "add"])
    assert not is_modular(["add", "multiply"])
    assert not is_modular(["Max"])
    assert not is_modular([])
