"""Plots for ``dvc plots`` and the report, as PNG files: the same numbers give the same bytes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import (
    LogLocator,
    MaxNLocator,
    NullLocator,
    PercentFormatter,
    StrMethodFormatter,
)

from atlas.tokens.windows import spread

Reals = npt.NDArray[np.floating]
DPI = 110
MAX_LABELS = 24  # an attention map of more tokens has no token labels
MAX_LAYERS, MAX_HEADS = 8, 12  # with an attention map, spread over the model
MAX_HEAD_ROWS = 64  # heads whose scores are drawn as numbers
TRAIN_COLOR, VAL_COLOR = "#8a6d00", "#1f6fb4"


def save(figure: Figure, path: Path) -> None:
    """Write a figure without the metadata that would differ between runs."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def plot_attention(weights: Sequence[Reals], labels: Sequence[str], path: Path) -> None:
    """Plot the attention map of each head and of the mean of all heads, one row per layer.

    Of many layers and heads, some are drawn. All maps are one image: an axis for each takes
    matplotlib ten times as long. ``weights`` are those of each layer, (H, T, T); ``labels`` are the
    T tokens.
    """
    all_heads, tokens = weights[0].shape[:2]
    drawn_layers, drawn_heads = spread(len(weights), MAX_LAYERS), spread(all_heads, MAX_HEADS)
    layers, heads = len(drawn_layers), len(drawn_heads)
    shown = [weights[number] for number in drawn_layers]
    maps = np.array([[*layer[drawn_heads], layer.mean(axis=0)] for layer in shown])
    maps[..., *np.triu_indices(tokens, 1)] = np.nan  # later tokens are masked
    gap = max(1, tokens // 12)
    padded = np.pad(maps, ((0, 0), (0, 0), (gap, 0), (gap, 0)), constant_values=np.nan)
    image = padded.swapaxes(1, 2).reshape(layers * (tokens + gap), -1)
    side = max(1.3, 0.11 * min(tokens, MAX_LABELS))  # inches per map
    size = ((heads + 1) * side + 1.8, layers * side + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    drawn = axis.imshow(image, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
    axis.spines[:].set_visible(False)
    for column in range(heads + 1):
        center = gap + column * (tokens + gap) + tokens / 2 - 0.5
        name = f"head {drawn_heads[column] + 1}" if column < heads else "mean"
        axis.text(center, 0, name, ha="center", va="bottom", fontsize=9)
    for row in range(layers):
        center = gap + row * (tokens + gap) + tokens / 2 - 0.5
        name = f"layer {drawn_layers[row] + 1}"
        axis.text(image.shape[1], center, name, va="center", rotation=90, fontsize=9)
    if tokens <= MAX_LABELS:
        names = [drawable(label) for label in labels]
        columns, row_starts = np.arange(tokens) + gap, np.arange(layers)[:, None] * (tokens + gap)
        axis.set_xticks(columns, names, rotation=90, fontsize=6, family="monospace")
        rows = (columns + row_starts).ravel()
        axis.set_yticks(rows, names * layers, fontsize=6, family="monospace")
        for tick in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            tick.set_parse_math(False)
    else:
        axis.set_xticks([])
        axis.set_yticks([])
    label = "attention weight (query down, key across)"
    figure.colorbar(drawn, ax=axis, shrink=0.7, label=label)
    save(figure, path)


def drawable(text: str) -> str:
    """Replace characters that the font lacks by a box."""
    glyphs = get_font(findfont("monospace")).get_charmap()
    return "".join(each if ord(each) in glyphs else "□" for each in text)


def plot_heads(table: pd.DataFrame, kinds: Sequence[str], path: Path) -> None:
    """Plot the scores of every head: numbers, one row per head, or colors alone for many heads."""
    if len(table) > MAX_HEAD_ROWS:
        _plot_head_grids(table, kinds, path)
        return
    values = table[list(kinds)].to_numpy()
    figure = Figure(figsize=(1.1 * len(kinds) + 2, 0.28 * len(table) + 1.2), layout="constrained")
    axis = figure.subplots()
    axis.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axis.set_xticks(range(len(kinds)), kinds)
    names = [f"{row.layer}.{row.head}" for row in table.itertuples()]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylabel("layer.head")
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value < 0.6 else "black"
        axis.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=7, color=color)
    axis.set_title("Mean attention weight per head")
    save(figure, path)


def _plot_head_grids(table: pd.DataFrame, kinds: Sequence[str], path: Path) -> None:
    """Plot a grid for each kind of key: layers down, heads across."""
    layers, heads = table["layer"].max(), table["head"].max()
    size = (len(kinds) * max(1.6, 0.16 * heads) + 1.5, 0.16 * layers + 1.2)
    figure = Figure(figsize=size, layout="constrained")
    grids = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axis, kind in zip(grids, kinds, strict=True):
        grid = table.pivot(index="layer", columns="head", values=kind).to_numpy()
        edges = (0.5, heads + 0.5, layers + 0.5, 0.5)
        drawn = axis.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto", extent=edges)
        axis.set_title(kind, fontsize=9)
        axis.set_xlabel("head")
        for ticks in (axis.xaxis, axis.yaxis):
            ticks.set_major_locator(MaxNLocator(nbins=8, integer=True))
    grids[0].set_ylabel("layer")
    figure.colorbar(drawn, ax=grids, label="mean attention weight")
    save(figure, path)


def plot_dynamics(rows: pd.DataFrame, path: Path) -> None:
    """Plot loss, accuracy and weight norm of metrics/val.csv over a logarithmic step axis."""
    rows = rows[rows["step"] > 0]
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    loss, accuracy, weights = figure.subplots(1, 3)
    marker = "o" if len(rows) == 1 else ""  # a line through one point does not show
    for axis, column in ((loss, "loss"), (accuracy, "accuracy")):
        for split, prefix, color in (("train", "train_", TRAIN_COLOR), ("val", "", VAL_COLOR)):
            if prefix + column in rows and rows[prefix + column].notna().any():
                axis.plot(
                    rows["step"], rows[prefix + column], color=color, marker=marker, label=split
                )
    best = rows.nsmallest(1, "loss")
    step, lowest = best["step"].item(), best["loss"].item()
    loss.plot(step, lowest, "o", color=VAL_COLOR, label=f"lowest val: {lowest:#.4g}")
    for axis in (loss, accuracy):
        axis.legend(frameon=False)
    accuracy.set_ylim(-0.02, 1.02)
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    weights.plot(rows["step"], rows["weight_norm"], color="#444444", marker=marker)
    titles = ("Loss (nats per token)", "Accuracy", "Weight norm")
    for axis, title in zip((loss, accuracy, weights), titles, strict=True):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("step")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.25)
    save(figure, path)


def plot_spectrum(table: pd.DataFrame, path: Path) -> None:
    """Plot the share of the power at each frequency."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    axis.bar(table["frequency"], table["share"], color=VAL_COLOR)
    axis.yaxis.set_major_formatter(PercentFormatter(1))
    axis.set_xlabel("frequency (periods over all numbers)")
    axis.set_ylabel("share of power")
    axis.set_title("Fourier spectrum of the number embeddings", fontsize=10)
    save(figure, path)
