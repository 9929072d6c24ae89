"""Plots have content and a sensible size, and the same numbers give the same bytes."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from atlas.evaluation.plots import plot_attention, plot_dynamics, plot_heads, plot_spectrum

ROWS = {
    "step": [0, 10, 20, 30],
    "loss": [5.0, 4.0, 3.5, 3.6],
    "accuracy": [0.0, 0.1, 0.2, 0.2],
    "train_loss": [5.0, 3.9, 3.1, 2.5],
    "train_accuracy": [0.0, 0.2, 0.4, 0.6],
    "weight_norm": [10.0, 11.0, 12.0, 13.0],
}


def attention(tokens, layers=2, heads=3):
    labels = ["$x_1$", "<|endoftext|>", "中", "é", "\t", *map(str, range(tokens - 5))]
    weights = np.tril(np.ones((heads, tokens, tokens))) / np.arange(1, tokens + 1)[:, None]
    return lambda path: plot_attention([weights] * layers, labels, path)


def heads(layers, heads):
    layer, head = np.indices((layers, heads)).reshape(2, -1) + 1
    share = (layer + head) / (layers + heads)
    table = pd.DataFrame({"layer": layer, "head": head, "first": share, "same": 1 - share})
    return lambda path: plot_heads(table, ["first", "same"], path)


PLOTS = {
    "attention": attention(8),
    "attention_of_many_tokens": attention(48),
    "attention_of_a_deep_model": attention(8, layers=30, heads=20),
    "heads": heads(1, 2),
    "heads_of_a_deep_model": heads(30, 9),
    "dynamics": lambda path: plot_dynamics(pd.DataFrame(ROWS), path),
    "dynamics_of_val_alone": lambda path: plot_dynamics(
        pd.DataFrame(ROWS).assign(train_loss=np.nan, train_accuracy=np.nan), path
    ),
    "dynamics_of_one_row": lambda path: plot_dynamics(pd.DataFrame(ROWS).iloc[1:2], path),
    "spectrum": lambda path: plot_spectrum(
        pd.DataFrame({"frequency": [1, 2, 3], "share": [0.2, 0.7, 0.1]}), path
    ),
}


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.filterwarnings("error")
def test_plots(name, tmp_path):
    PLOTS[name](tmp_path / "a.png")
    PLOTS[name](tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert 250 < width < 2500
    assert 100 < height < 2500
    assert imread(tmp_path / "a.png").std() > 0.05  # not blank
