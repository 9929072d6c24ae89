"""The picture of a study: its first measure over what is varied."""

import io
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from atlas.tools.studies.results import Result
from atlas.tools.studies.study import Study, text_of

INCHES = (7.0, 4.2)
LINE, POINTS = "#1f5fa8", "#d1722b"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "atlas",  # the same results give the same bytes
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
}
LONG = 8  # letters from which labels stand slanted


def draw(study: Study, results: list[Result]) -> str:
    """The picture as SVG: a point a run, and a line through the means over seeds."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.add_subplot()
        _draw_points(axes, study, results)
        _draw_axes(axes, study)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def _draw_points(axes: Axes, study: Study, results: list[Result]) -> None:
    measure = study.plan.measures[0]
    means: list[tuple[float, float]] = []
    for row in range(len(study.plan.vary)):
        values = [
            result.measures[measure]
            for result in results
            if result.run.row == row and measure in result.measures
        ]
        if values:
            place = place_of(study, row)
            axes.plot([place] * len(values), values, "o", color=POINTS, alpha=0.7, zorder=3)
            means.append((place, sum(values) / len(values)))
    means.sort()
    several = len(study.plan.seeds) > 1
    line = "none" if study.plan.scale == "category" else "-"
    axes.plot(
        [place for place, _ in means],
        [mean for _, mean in means],
        linestyle=line,
        marker="_",
        markersize=22 if several and line == "none" else 8,
        markeredgewidth=2,
        color=LINE,
        label="mean over seeds" if several else None,
    )
    if several and means:
        axes.legend(frameon=False)


def place_of(study: Study, row: int) -> float:
    """Where a row stands on the x axis: at its value, or one after the other."""
    if study.plan.scale == "category":
        return float(row)
    return float(study.value(row, study.plan.keys[0]))


def _draw_axes(axes: Axes, study: Study) -> None:
    plan = study.plan
    rows = range(len(plan.vary))
    is_category = plan.scale == "category"
    labels = [
        study.label(row)
        if is_category or plan.vary[row].label
        else text_of(study.value(row, plan.keys[0]))
        for row in rows
    ]
    if plan.scale == "log":
        axes.set_xscale("log")
    slanted = is_category and max(map(len, labels)) > LONG
    axes.set_xticks([place_of(study, row) for row in rows], labels)
    axes.tick_params(axis="x", labelrotation=25 if slanted else 0, which="both")
    axes.minorticks_off()
    axes.set_xlabel(", ".join(plan.keys) if is_category else plan.keys[0])
    axes.set_ylabel(plan.measures[0].split(".")[-1].replace("_", " "))
