"""Pictures for ``dvc plots`` and for the report, as PNG files.

The same numbers give the same bytes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter, StrMethodFormatter

Reals = npt.NDArray[np.floating]
DOTS_PER_INCH = 110
MOST_LABELS = 24  # tokens of a map that are written beside it
TRAIN, VAL = "#8a6d00", "#1f6fb4"  # readable beside each other, also without colours by their order


def save(figure: Figure, path: Path) -> None:
    """Writes a figure without anything that changes from run to run."""
    figure.savefig(path, dpi=DOTS_PER_INCH, metadata={"Software": None})


def draw_attention(weights: Sequence[Reals], labels: Sequence[str], path: Path) -> None:
    """Draws a map of each head, and of the mean of a layer's heads; a layer a row.

    Attention is causal: a query sees what is before it.
    All maps are one image, as an axis for each takes matplotlib ten times as long.

    Args:
        weights: of each layer, (H, T, T).
        labels: the T tokens.
        path: of the picture.
    """
    layers, (heads, tokens) = len(weights), weights[0].shape[:2]
    maps = np.array([[*layer, layer.mean(axis=0)] for layer in weights])  # (layers, H + 1, T, T)
    maps[..., *np.triu_indices(tokens, 1)] = np.nan  # what comes later is not seen
    gap = max(1, tokens // 12)
    framed = np.pad(maps, ((0, 0), (0, 0), (gap, 0), (gap, 0)), constant_values=np.nan)
    image = framed.swapaxes(1, 2).reshape(layers * (tokens + gap), -1)
    side = max(1.3, 0.11 * min(tokens, MOST_LABELS))  # inches of a map
    size = ((heads + 1) * side + 1.8, layers * side + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(image, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    axis.spines[:].set_visible(False)
    for column in range(heads + 1):
        middle = gap + column * (tokens + gap) + tokens / 2 - 0.5
        name = f"head {column + 1}" if column < heads else "mean"
        axis.text(middle, 0, name, ha="center", va="bottom", fontsize=9)
    for row in range(layers):
        middle = gap + row * (tokens + gap) + tokens / 2 - 0.5
        axis.text(image.shape[1], middle, f"layer {row + 1}", va="center", rotation=90, fontsize=9)
    if tokens <= MOST_LABELS:
        names = [drawable(label) for label in labels]
        across, down = np.arange(tokens) + gap, np.arange(layers)[:, None] * (tokens + gap)
        axis.set_xticks(across, names, rotation=90, fontsize=6, family="monospace")
        axis.set_yticks((across + down).ravel(), names * layers, fontsize=6, family="monospace")
        for tick in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            tick.set_parse_math(False)
    else:
        axis.set_xticks([])
        axis.set_yticks([])
    label = "weight of a key (across) for a query (down)"
    figure.colorbar(drawn, ax=axis, shrink=0.7, label=label)
    save(figure, path)


def drawable(text: str) -> str:
    """A text with a box for every letter that the font has not."""
    letters = get_font(findfont("monospace")).get_charmap()
    return "".join(each if ord(each) in letters else "□" for each in text)


def draw_heads(table: pd.DataFrame, kinds: Sequence[str], path: Path) -> None:
    """Draws the scores of every head, a row each, with their numbers."""
    values = table[list(kinds)].to_numpy()
    figure = Figure(figsize=(1.1 * len(kinds) + 2, 0.28 * len(table) + 1.2), layout="constrained")
    axis = figure.subplots()
    axis.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(kinds)), kinds)
    names = [f"{row.layer}.{row.head}" for row in table.itertuples()]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylabel("layer.head")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value < 0.6 else "black"
        axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    axis.set_title("Mean weight that a head gives to")
    save(figure, path)


def draw_dynamics(rows: pd.DataFrame, path: Path) -> None:
    """Draws loss, accuracy and the norm of the weights over the steps, which are logarithmic.

    Args:
        rows: of metrics/val.csv.
        path: of the picture.
    """
    rows = rows[rows["step"] > 0]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, accuracy, weights = figure.subplots(1, 3)
    for axis, column in ((loss, "loss"), (accuracy, "accuracy")):
        if f"train_{column}" in rows:
            axis.plot(rows["step"], rows[f"train_{column}"], color=TRAIN, label="train")
        axis.plot(rows["step"], rows[column], color=VAL, label="val")
    best = rows.nsmallest(1, "loss")
    step, lowest = best["step"].item(), best["loss"].item()
    loss.plot(step, lowest, "o", color=VAL, label=f"lowest: {lowest:.3g}")
    for axis in (loss, accuracy):
        axis.legend(frameon=False)
    accuracy.set_ylim(-0.02, 1.02)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    weights.plot(rows["step"], rows["weight_norm"], color="#444444")
    titles = ("Loss, nats a token", "Accuracy", "Norm of all weights")
    for axis, title in zip((loss, accuracy, weights), titles, strict=True):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("step")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
    save(figure, path)


def draw_spectrum(table: pd.DataFrame, path: Path) -> None:
    """Draws the share of the power of each frequency."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.bar(table["frequency"], table["share"], color=VAL)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set_xlabel("frequency, turns over all numbers")
    axis.set_ylabel("share of the power")
    axis.set_title("Fourier spectrum of the embedding of numbers", fontsize=10)
    save(figure, path)
