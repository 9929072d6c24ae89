"""The page: its sections in order, and the HTML that needs nothing beside itself."""

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from atlas.tools.report.blocks import Section
from atlas.tools.report.curves import learning_charts
from atlas.tools.report.data import corpus, pictures, texts, vocabulary
from atlas.tools.report.history import History
from atlas.tools.report.overview import comparison, everything, lead, overview
from atlas.tools.report.quality import quality
from atlas.tools.report.reading import readable
from atlas.tools.report.results import Results
from atlas.tools.report.shipping import export, timings

TEMPLATE = "report.html.j2"


def sections(results: Results, history: History) -> list[Section]:
    """The sections for which there is something to show, in the order of the page."""
    charts = learning_charts(results)
    found = [
        overview(results, history),
        comparison(results, history),
        Section("curves", "Learning", charts) if charts else None,
        texts(results, history),
        *quality(results),
        pictures(results, history),
        vocabulary(results),
        corpus(results),
        export(results),
        timings(results),
        everything(results, history),
    ]
    return [section for section in found if section]


def render(results: Results, history: History) -> str:
    """The page as HTML, the same for the same results and the same commit."""
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            commit=history.commit,
            lead=lead(results, history),
            name=str((history.ran or history.params).get("export.name") or "atlas"),
            sections=sections(results, history),
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_shown,
    )
    environment.filters["drawn"] = Markup
    return environment


def _shown(value: object) -> object:
    """What is printed into the page; texts become such that any page can hold."""
    return readable(value) if type(value) is str else value
