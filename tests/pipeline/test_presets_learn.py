"""Presets learn what their comments promise, each run with one command."""

import pandas as pd
import pytest

from atlas.corpora.arithmetic import OPERATIONS

pytestmark = pytest.mark.very_slow


def run_preset(checkout, name, *more):
    checkout.seconds = 3000
    checkout.git("checkout", "-q", "HEAD", "--", "params.yaml")
    checkout.dvc("exp", "run", *checkout.run("atlas", "preset", name).split(), *more)
    return checkout.json("metrics/train.json"), checkout.json("metrics/evaluate.json")


def test_arithmetic_is_learned_and_heads_attend_to_the_right_digits(checkout):
    _, found = run_preset(checkout, "arithmetic", "-S", "export.formats=[]")
    assert found["test_accuracy"] >= 0.995
    assert found["edge_case_accuracy"] >= 0.95
    sources = pd.read_csv(checkout.root / "metrics/tables/sources.csv")
    assert set(sources["source"]) == set(OPERATIONS)
    assert (sources["accuracy"] >= 0.97).all(), sources
    digits = pd.read_csv(checkout.root / "metrics/tables/digits.csv").set_index("operation")
    assert set(digits.index) == {"First", "Second", "Last"}
    assert (digits["found"] >= 0.95).all(), digits


def test_grokking_comes_late_and_only_with_weight_decay(checkout):
    smaller = ("-S", "train.eval_windows=2000")
    learned, _ = run_preset(checkout, "grokking", *smaller)
    assert learned["generalised_step"] >= 5 * learned["learned_step"]
    never, _ = run_preset(checkout, "grokking", *smaller, "-S", "train.weight_decay=0")
    assert never["learned_step"] < 1000
    assert "generalised_step" not in never
    assert never["last_val_accuracy"] < 0.5
