"""Charts as SVG that takes its colours and its letters from the page around it.

Matplotlib draws with colours that nobody else uses; each is then replaced by a variable of the
page's style, so that one drawing serves light and dark. The same numbers give the same bytes.
"""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from atlas.tools.report.numbers import compact

WIDTH, HEIGHT, DPI = 460, 270, 72  # points: a phone shows them at three quarters
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 26, 38  # points around the axes, for their labels
COLOURS = {
    "muted": "#000001",
    "line": "#000002",
    "edge": "#000003",
    "train": "#000004",
    "average": "#000005",
    "val": "#000006",
    "accent": "#000007",
    "look": "#000008",
    "surface": "#000009",
}
STYLE = {
    "svg.fonttype": "none",  # letters stay letters
    "text.parse_math": False,
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOURS["edge"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.8,
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
}
MARK = 5.5
HEAD = re.compile(r"^.*?(?=<svg )", re.DOTALL)
EXTRAS = re.compile(r"<metadata>.*?</metadata>|<style type=.*?</style>", re.DOTALL)
SIZE = re.compile(r'(<svg )(?:.*?)(viewBox="[^"]*")(?:.*?)>', re.DOTALL)
NAMES = re.compile(r'(\bid="|url\(#|href="#)')


@dataclass(frozen=True)
class Curve:
    """A line through points.

    Attributes:
        points: x and y of each, in the order of x.
        colour: a name of ``COLOURS``.
        thin: whether it is drawn behind the others.
        marks: whether its points are marked.
        mark: a point of it that stands out, or None.
    """

    points: Sequence[tuple[float, float]]
    colour: str
    thin: bool = False
    marks: bool = False
    mark: tuple[float, float] | None = None


@dataclass(frozen=True)
class Level:
    """A height to compare curves with, and its name."""

    height: float
    name: str


def line_chart(
    name: str,
    about: str,
    curves: Sequence[Curve],
    *,
    labels: tuple[str, str],
    log_x: bool = False,
    levels: Sequence[Level] = (),
    whole: bool = False,
    from_zero: bool = False,
    height: float = HEIGHT,
) -> str:
    """Lines over x, as an SVG element.

    Args:
        name: of the drawing, which no other one of the page has.
        about: what it shows, for who does not see it.
        curves: with at least one point each.
        labels: of x and y.
        log_x: whether each power of ten of x is as wide; what is not above 0 is then left out.
        levels: heights to draw as well.
        whole: whether y goes from 0 to 1.
        from_zero: whether y begins at 0.
        height: of the drawing, in points.
    """
    with _axes(name, height) as (figure, axes):
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(numticks=8))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for curve in curves:
            points = [point for point in curve.points if point[0] > 0 or not log_x]
            xs, ys = [x for x, _ in points], [y for _, y in points]
            colour = COLOURS[curve.colour]
            axes.plot(
                xs,
                ys,
                color=colour,
                linewidth=1.1 if curve.thin else 2,
                zorder=2 if curve.thin else 3,
                marker="o" if curve.marks or len(points) == 1 else None,
                markersize=3.5,
                markeredgewidth=0,
            )
            if curve.mark and (curve.mark[0] > 0 or not log_x):
                axes.plot(
                    *curve.mark,
                    marker="o",
                    markersize=MARK + 2,
                    color=colour,
                    markeredgecolor=COLOURS["surface"],
                    markeredgewidth=1.5,
                    zorder=4,
                )
        for level in levels:
            axes.axhline(level.height, color=COLOURS["edge"], linewidth=1.2, linestyle=(0, (2, 3)))
            axes.annotate(
                level.name,
                (1, level.height),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                va="bottom",
                color=COLOURS["muted"],
                fontsize=9.5,
            )
        _label(axes, labels)
        if whole:
            axes.set_ylim(0, 1.02)
        elif from_zero:
            axes.set_ylim(0)
        return _svg(figure, name, about)


def diagonal_chart(
    name: str, about: str, points: Sequence[tuple[float, float, float]], labels: tuple[str, str]
) -> str:
    """Points (x, y, weight) from 0 to 1 beside the diagonal, larger where they weigh more."""
    with _axes(name) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=COLOURS["edge"], linewidth=1.2, linestyle=(0, (2, 3)))
        xs, ys, weights = zip(*points, strict=True)
        axes.plot(xs, ys, color=COLOURS["accent"], linewidth=2)
        heaviest = max(max(weights), 1e-9)
        sizes = [12 + 110 * max(weight, 0) / heaviest for weight in weights]
        axes.scatter(
            xs,
            ys,
            s=sizes,
            color=COLOURS["accent"],
            edgecolor=COLOURS["surface"],
            linewidth=1.2,
            zorder=3,
        )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        _label(axes, labels)
        return _svg(figure, name, about)


def square_chart(
    name: str, about: str, shares: Sequence[Sequence[float]], labels: tuple[str, str]
) -> str:
    """A matrix of shares (N, M) from 0 to 1 as warm squares, for one too large to be read."""
    warm = LinearSegmentedColormap.from_list("warm", ["#f08c0000", "#f08c00ff"])
    with _axes(name, height=WIDTH * 0.9) as (figure, axes):
        axes.imshow(shares, cmap=warm, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
        axes.grid(visible=False)
        _label(axes, labels)
        return _svg(figure, name, about)


@contextmanager
def _axes(name: str, height: float = HEIGHT) -> Iterator[tuple[Figure, Axes]]:
    style: Any = STYLE | {"svg.hashsalt": name}
    with mpl.rc_context(style):
        figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)
        figure.patch.set_visible(False)
        wide, high = WIDTH - LEFT - RIGHT, height - TOP - BOTTOM
        axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, wide / WIDTH, high / height))
        axes.patch.set_visible(False)
        yield figure, axes


def _label(axes: Axes, labels: tuple[str, str]) -> None:
    """Names the axes; the name of y stands above it, where it can be read."""
    axes.set_xlabel(labels[0])
    axes.annotate(
        labels[1],
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 10),
        textcoords="offset points",
        color=COLOURS["muted"],
    )
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "linear":
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: compact(value)))


def _svg(figure: Figure, name: str, about: str) -> str:
    """The figure as an element that belongs into a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = EXTRAS.sub("", HEAD.sub("", file.getvalue()))
    text = NAMES.sub(rf"\g<1>{name}-", text)
    for variable, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{variable})")
    told = f'role="img" aria-label="{escape(about)}"'
    return SIZE.sub(lambda found: f"{found[1]}{told} {found[2]}>", text, count=1)


def finite(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of which both numbers are there."""
    return [point for point in points if all(map(math.isfinite, point))]
