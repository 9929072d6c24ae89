"""Charts as SVG elements of the page.

The colors are bright enough for a dark card and dark enough for a light one; text takes its color
and font from the style sheet. The same numbers give the same bytes.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from atlas.tools.report.results import Results, curve_values, numbers
from atlas.tools.report.tables import compact, ngram_losses, percent, spaced, title_case

BLUE, PALE_BLUE, ORANGE = "#3d85e8", "#3d85e870", "#dd7a12"
HEAT = LinearSegmentedColormap.from_list("heat", ["#3d85e800", "#3d85e8ff"])
DOTTED: dict[str, Any] = {"color": "#7d8896", "linewidth": 1.2, "linestyle": (0, (2, 3))}
STYLE = mpl.rc_params_from_file(
    Path(__file__).with_name("chart.mplstyle"), use_default_template=False
)
DPI, WIDTH, HEIGHT, TALL = 72, 460, 270, 330  # in points; a phone shows them at three quarters
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 28, 38  # points around the axes, for their labels
LONG_RUN = 5_000  # steps; the step axis is logarithmic for this many or more


@dataclass(frozen=True)
class Chart:
    """A drawing, its title, its legend (a color and a name per curve), and a note."""

    title: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """Values by step, in the order of steps; `mark` is a step whose point stands out."""

    values: "pd.Series[float]"
    color: str = BLUE
    name: str = ""
    mark: float | None = None


def draw(
    name: str,
    title: str,
    labels: tuple[str, str],
    plot: Callable[[Axes], None],
    *,
    shape: str = "",
    legend: Sequence[tuple[str, str]] = (),
    note: str = "",
    height: float = HEIGHT,
) -> Chart:
    """Draw a chart, ``height`` in points.

    A name that is unique on the page makes the ids in the SVG element unique. Labels are those of x
    and y; the label of y is above its axis, so that it reads horizontally. Screen readers get the
    title, the shape (such as its rows and columns), the names in the legend and the note.
    """
    file = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH / DPI, height / DPI))
        wide, high = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, wide / WIDTH, high / height))
        axes.locator_params(nbins=5)
        plot(axes)
        axes.set(xlabel=labels[0], title=labels[1])
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: compact(value))
        figure.savefig(file, format="svg", metadata={"Date": None})
    description = ". ".join(filter(None, [title + shape, *(name for _, name in legend), note]))
    return Chart(title, _element(file.getvalue(), description), legend, note)


def _element(svg: str, description: str) -> Markup:
    """Make a page element of an SVG file, without namespaces, metadata, styles, repeated ids."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - drawn just now
    for element in root.iter():
        for child in list(element):
            child.tag = child.tag.rpartition("}")[2]
            if child.tag in ("metadata", "style"):
                element.remove(child)
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.items()}
        if element.tag == "g":  # nothing refers to groups; ids of definitions are unique
            element.attrib.pop("id", None)
    root.tag = "svg"
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": description}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - escaped


def step_chart(
    name: str,
    title: str,
    label: str,
    curves: Sequence[Curve],
    *,
    levels: Sequence[tuple[str, float]] = (),
    limits: tuple[float | None, float | None] = (None, None),
    height: float = HEIGHT,
    note: str = "",
) -> Chart | None:
    """Draw curves over training steps, logarithmic for long runs; None if none has two points.

    Levels are dotted lines to compare with, highest first. Limits are those of y; None leaves room
    for the curves.
    """
    curves = [curve for curve in curves if len(curve.values)]
    if max((len(curve.values) for curve in curves), default=0) < 2:
        return None
    steps = pd.Index([step for curve in curves for step in curve.values.index])
    logarithmic = bool(steps.max() >= LONG_RUN and steps[steps > 0].nunique() > 1)

    def plot(axes: Axes) -> None:
        if logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
        for curve in curves:
            values = curve.values[curve.values.index > 0] if logarithmic else curve.values
            marker = "o" if len(values) == 1 else ""
            width = 1.1 if curve.color == PALE_BLUE else 2
            axes.plot(values.index, values, color=curve.color, linewidth=width, marker=marker)
            if curve.mark is not None and curve.mark in values.index:
                axes.plot(curve.mark, values[curve.mark], "o", color=curve.color, markersize=7)
        for number, (level, y) in enumerate(levels):
            axes.axhline(y, **DOTTED)
            side = "top" if number else "bottom"  # of the text, so that two levels do not overlap
            axes.text(1, y, level, transform=axes.get_yaxis_transform(), ha="right", va=side)
        axes.set_ylim(*limits)

    legend = [(curve.color, curve.name) for curve in curves if curve.name]
    more: dict[str, Any] = {"legend": legend, "note": note, "height": height}
    return draw(name, title, ("step", label), plot, shape=", by training step", **more)


def loss_chart(results: Results) -> Chart | None:
    """The losses on train and val, and those of n-gram models."""
    train, val = results.tables.get("train"), results.tables.get("val")
    logged, smooth = curve_values(train, "loss"), curve_values(train, "loss_average")
    measured, checked = curve_values(val, "train_loss"), curve_values(val, "loss")
    main = smooth if measured.empty else measured
    name = "train, smoothed" if measured.empty else "train, measured like val"
    color = BLUE if main.empty else PALE_BLUE
    curves = [Curve(logged, color, "train, as logged"), Curve(main, BLUE, name)]
    if len(checked):
        best = float(checked.index[int(checked.argmin())])
        name = f"val, best {checked.min():#.4g} at step {best:,.0f}"
        curves.append(Curve(checked, ORANGE, name, mark=best))
    levels = [(title_case(name), loss) for name, loss in ngram_losses(results).items()]
    return step_chart("loss", "Loss, nats per token", "loss", curves, levels=levels, height=TALL)


def accuracy_chart(results: Results) -> Chart | None:
    """The accuracies on train and val."""
    train, val = results.tables.get("train"), results.tables.get("val")
    learned, checked = curve_values(val, "train_accuracy"), curve_values(val, "accuracy")
    learned = curve_values(train, "accuracy") if learned.empty else learned
    curves = [
        Curve(values, color, f"{split}, {percent(values.iloc[-1])} at the end", values.index[-1])
        for values, color, split in ((learned, BLUE, "train"), (checked, ORANGE, "val"))
        if len(values)
    ]
    high = any(curve.values.max() > 0.5 for curve in curves)
    limits = (0.0, 1.02) if high else (None, None)
    title = "Accuracy, share of correct tokens or answers"
    return step_chart("accuracy", title, "accuracy", curves, limits=limits)


def metric_chart(
    results: Results, file: str, column: str, title: str, bottom: float | None = None
) -> Chart | None:
    """One logged metric."""
    values = curve_values(results.tables.get(file), column)
    note = ""
    if len(values):
        low, high, last = map(compact, (values.min(), values.max(), values.iloc[-1]))
        note = f"Between {low} and {high}, {last} at the end."
    label = spaced(column)
    return step_chart(column, title, label, [Curve(values)], limits=(bottom, None), note=note)


def calibration_chart(results: Results) -> Chart | None:
    """Accuracy over confidence with the diagonal, larger points for more tokens; None for one."""
    columns = ["confidence", "accuracy", "tokens"]
    table = results.table("tables/calibration", *columns)
    if table is None:
        return None
    points = table[columns].apply(numbers).dropna().sort_values(columns)
    x, y, tokens = (points[name] for name in columns)
    if len(points) < 2 or tokens.sum() <= 0:
        return None
    gap = (tokens * (x - y).abs()).sum() / tokens.sum()

    def plot(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], **DOTTED)
        axes.plot(x, y, color=BLUE)
        axes.scatter(x, y, s=12 + 110 * tokens.clip(lower=0) / tokens.max(), color=BLUE)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))

    title = "Accuracy at each level of confidence"
    off = f"Off by {percent(gap)} on average over {tokens.sum():,.0f} tokens."
    note = f"{off} Dotted: perfect calibration."
    return draw("calibration", title, ("confidence", "accuracy"), plot, note=note)


def matrix_chart(title: str, shares: pd.DataFrame, labels: tuple[str, str], note: str) -> Chart:
    """A matrix of shares from 0 to 1 that is too large to read as numbers."""

    def plot(axes: Axes) -> None:
        axes.imshow(shares, cmap=HEAT, vmin=0, vmax=1, interpolation="none", aspect="auto")
        axes.grid(visible=False)

    shape = f": {shares.shape[0]} rows, {shares.shape[1]} columns"
    return draw("matrix", title, labels, plot, shape=shape, note=note, height=WIDTH * 0.9)
