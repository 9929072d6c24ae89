"""Render the page as self-contained HTML."""

import functools
import shlex
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from atlas.errors import AtlasError
from atlas.params.presets import override
from atlas.pipeline.files import write_text
from atlas.tools.report import charts, tables, wording
from atlas.tools.report.history import History, read_history
from atlas.tools.report.results import Results, read_results, readable

PAGE = "report.html"


def write_report(root: Path) -> Path:
    """Write metrics/report.html of a project and return its path."""
    folder = root / "metrics"
    if not folder.is_dir():
        raise AtlasError(f"{folder}: no results yet; run `dvc repro`")
    page = folder / PAGE
    write_text(page, render(read_results(folder), read_history(root, folder)))
    return page


def render(results: Results, history: History) -> str:
    """Render the page; equal results and commits give equal HTML."""
    return _template().render(
        results=results,
        history=history,
        params=history.params,
        compared=tables.compared(results, history.commit),
    )


@functools.cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: readable(value) if type(value) is str else value,
        extensions=["jinja2.ext.do"],
    )
    names = ("cell", "compact", "duration", "exact", "percent", "size", "spaced", "title_case")
    functions = {name: getattr(wording, name) for name in names} | {"override": override}
    environment.filters |= functions | {"shell": shlex.quote}
    environment.globals |= functions | {"charts": charts, "tables": tables, "zip": zip}
    return environment.get_template("report.html.j2")
