"""Results of a study: a CSV file of all runs, a plot and a page with a table."""

import io
import json
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import pandas as pd
from dvc.api import DVCFileSystem
from matplotlib.figure import Figure

from atlas.errors import AtlasError, one_line
from atlas.params.overrides import override as format_value
from atlas.pipeline.files import write_csv, write_text
from atlas.tools.console import printable
from atlas.tools.studies.study import SEED, Study, StudyRun, metrics_file, study_file

LOGS = Path(".ckpt/studies")
PAGES = Path("docs/studies")
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
FIGURE_INCHES = (7.0, 4.2)
LINE_COLOR, POINT_COLOR = "#1f5fa8", "#d1722b"
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "atlas",  # equal results give equal bytes
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
}
MAX_HORIZONTAL_LABEL = 8  # characters


@dataclass(frozen=True)
class RunResult:
    """State and measurements of one run."""

    run: StudyRun
    state: Literal["done", "failed", "not run"]
    measures: dict[str, float] = field(default_factory=dict)  # values; may lack some measures
    reason: str = ""  # of a failure, in one line


def read_result(root: Path, study: Study, run: StudyRun, finished: Set[str]) -> RunResult:
    """Read the result of a run; ``finished`` names all experiments in the repository."""
    if run.name in finished:
        project, found = DVCFileSystem(str(root), rev=run.name), {}
        for measure in study.spec.measures:
            if project.isfile(file := metrics_file(measure)):
                found[measure] = json.loads(project.read_text(file)).get(measure.split(".")[-1])
        measures = {key: value for key, value in found.items() if isinstance(value, int | float)}
        return RunResult(run, "done", measures)
    if (log := root / log_of(run.name)).is_file():
        return RunResult(run, "failed", reason=failure(log))
    return RunResult(run, "not run")


def log_of(run: str) -> Path:
    """Return the file with the output of a run that has ended."""
    return LOGS / f"{run}.log"


def failure(log: Path) -> str:
    """Return the line of a log that says why the run failed."""
    printed = log.read_text(encoding="utf-8", errors="replace")
    lines = [printable(one_line(line)) for line in printed.splitlines() if line.strip()]
    for mark in ("error: ", "ERROR: "):  # of a stage, of DVC
        if errors := [line for line in lines if line.startswith(mark)]:
            return errors[-1].removeprefix(mark)
    return (lines or ["no output"])[-1]


def csv_rows(study: Study, results: list[RunResult]) -> list[dict[str, object]]:
    """Return one row per run for the CSV file; a missing measure is None."""
    return [
        {
            "experiment": result.run.name,
            "label": study.label(result.run.row),
            **{key: study.value(result.run.row, key) for key in study.spec.keys},
            SEED: result.run.seed,
            "state": result.state,
            **{measure: result.measures.get(measure) for measure in study.spec.measures},
            "reason": result.reason,
        }
        for result in results
    ]


def as_markdown(study: Study, results: list[RunResult]) -> str:
    """Format a Markdown table with a row per value: mean and range of measures, runs."""
    spec = study.spec
    has_labels = any(row.label for row in spec.vary)
    short = [measure.split(".")[-1] for measure in spec.measures]
    names = [
        name if short.count(name) == 1 else measure  # the full name if two share a short one
        for name, measure in zip(short, spec.measures, strict=True)
    ]
    header = [*([""] if has_labels else []), *spec.keys, *names, "runs"]
    lines = [_table_line(header), _table_line(["---"] * len(header))]
    for row in range(len(spec.vary)):
        own = [result for result in results if result.run.row == row]
        cells = [study.label(row)] if has_labels else []
        cells += [format_value(study.value(row, key)) for key in spec.keys]
        cells += [mean_and_range(_values(own, measure)) for measure in spec.measures]
        lines.append(_table_line([*cells, _count_runs(own)]))
    return "\n".join(lines)


def mean_and_range(values: list[float]) -> str:
    """Format values as ``1.893 (1.88 to 1.91)``, equal ones as one number, none as ""."""
    if not values:
        return ""
    mean = f"{sum(values) / len(values):.4g}"
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return mean if low == high else f"{mean} ({low} to {high})"


def draw(study: Study, results: list[RunResult]) -> str:
    """Plot the first measure as SVG: one point per run, and a line through the means over seeds."""
    spec, measure = study.spec, study.spec.measures[0]
    has_seeds, is_category = len(spec.seeds) > 1, spec.scale == "category"
    keys = spec.keys if is_category else spec.keys[:1]
    rows = range(len(spec.vary))
    labels = [study.label(row, keys) for row in rows]
    x_of = [float(row if is_category else study.value(row, keys[0])) for row in rows]
    measured = [result for result in results if measure in result.measures]
    points = pd.Series(
        [result.measures[measure] for result in measured],
        index=[x_of[result.run.row] for result in measured],
    )
    means = points.groupby(level=0).mean()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=FIGURE_INCHES, layout="constrained")
        axes = figure.add_subplot(
            xlabel=", ".join(keys), ylabel=measure.split(".")[-1].replace("_", " ")
        )
        axes.plot(points, "o", color=POINT_COLOR, alpha=0.7, zorder=3)
        axes.plot(
            means,
            linestyle="none" if is_category else "-",
            marker="_",
            markersize=22 if has_seeds and is_category else 8,
            markeredgewidth=2,
            color=LINE_COLOR,
            label="mean over seeds" if has_seeds else None,
        )
        if has_seeds:
            axes.legend(frameon=False)
        if spec.scale == "log":
            axes.set_xscale("log")
        is_tilted = is_category and max(map(len, labels)) > MAX_HORIZONTAL_LABEL
        axes.set_xticks(x_of, labels)
        axes.tick_params(axis="x", labelrotation=25 if is_tilted else 0, which="both")
        axes.minorticks_off()
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue()


def write_page(root: Path, study: Study, results: list[RunResult]) -> Path:
    """Write the CSV, the plot and the page, and return the page's path relative to the root.

    In an existing page, only the text between the two markers is replaced.
    """
    spec, name, file = study.spec, study.name, study_file(study.name)
    page = PAGES / f"{name}.md"
    if (root / page).is_file():
        text = (root / page).read_text(encoding="utf-8")
    else:
        title, question = name.replace("-", " ").capitalize(), spec.question.strip()
        command = f"```sh\natlas study {name}\n```"
        text = f"# {title}\n\n{question}\n\n{command}\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise AtlasError(f"{page}: add the lines {BEGIN} and {END} where the results belong")
    write_csv(root / PAGES / f"{name}.csv", csv_rows(study, results))
    plot = ""
    if _values(results, spec.measures[0]):
        write_text(root / PAGES / f"{name}.svg", draw(study, results))
        plot = f"![{spec.measures[0]} over {', '.join(spec.keys)}]({name}.svg)\n\n"
    presets = f"presets {', '.join(spec.presets)}; " if spec.presets else ""
    mean = " Mean over seeds, with the range in brackets." if len(spec.seeds) > 1 else ""
    values = "; ".join(f"`{key}={format_value(study.value(0, key))}`" for key in spec.set)
    block = (
        f"{sum(result.state == 'done' for result in results)} of {len(results)} runs of "
        f"[{file}](../../{file}): {presets}{values or 'default params'}; "
        f"{SEED} {', '.join(map(str, spec.seeds))}.{mean}\n\n{as_markdown(study, results)}\n\n"
        f"{plot}All runs: [{name}.csv]({name}.csv)."
    )
    write_text(root / page, f"{before}{BEGIN}\n{block}\n{END}{after}")
    return page


def _values(results: list[RunResult], measure: str) -> list[float]:
    return [result.measures[measure] for result in results if measure in result.measures]


def _count_runs(results: list[RunResult]) -> str:
    """Format as ``3``, ``2 of 3``, or with the number and reasons of failures."""
    done = sum(result.state == "done" for result in results)
    text = str(done) if done == len(results) else f"{done} of {len(results)}"
    reasons = [result.reason for result in results if result.state == "failed"]
    return f"{text}, {len(reasons)} failed: {'; '.join(sorted(set(reasons)))}" if reasons else text


def _table_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
