"""Write pages of HTML that need no network: the report, and the template of DVC's plots."""

import base64
import functools
import hashlib
import shlex
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from atlas.errors import AtlasError, one_line
from atlas.params.overrides import override
from atlas.pipeline.files import write_text
from atlas.pipeline.pages import page_environment
from atlas.tools.report import charts, tables
from atlas.tools.report.results import History, Results, read_history, read_results

PLOTS = "offline_plots.html"  # in .dvc, listed in its .gitignore
VEGA_LITE = "5."  # the version DVC writes its plots in
EXPORTS = "window.vegaEmbed = vegaEmbed;"
PLACEHOLDERS = ("{scripts}", "{plot_divs}", "{refresh_tag}", "</script", "<!--")


def write_report(root: Path) -> Path:
    """Write metrics/report.html of a project and return its path."""
    folder = root / "metrics"
    if not folder.is_dir():
        raise AtlasError(f"{folder}: no results yet; run `dvc repro`")
    page = folder / "report.html"
    write_text(page, render(read_results(folder), read_history(root, folder)))
    return page


def render(results: Results, history: History) -> str:
    """Render the page; equal results and commits give equal HTML."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            results=results,
            history=history,
            params=history.params,
            compared=tables.compared(results, history.commit),
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = page_environment(Path(__file__).parent)
    names = ("cell", "compact", "duration", "measure", "percent", "size", "spaced", "title_case")
    functions = {name: getattr(tables, name) for name in names} | {"override": override}
    environment.filters |= functions | {"shell": shlex.quote}
    environment.globals |= functions | {"charts": charts, "tables": tables, "zip": zip}
    return environment


def write_offline_plots(root: Path) -> str:
    """Let `dvc plots` draw without a network, unless a template is set; return a line about it.

    DVC's page loads Vega from the web and is blank without it. DVC accepts another template and
    fills in `{plot_divs}` and `{refresh_tag}`; this one contains Vega, taken from vl-convert.
    Template and setting go into .dvc, where git ignores them: they belong to this clone.
    """
    from dvc.config import Config, ConfigError  # slow

    folder = root / ".dvc"
    if not folder.is_dir():
        raise AtlasError(f"{folder}: missing; run `dvc init`")
    page = folder / PLOTS
    template = _environment().get_template("plots.html.j2")
    script = f"{vega_script()}\n{Path(__file__).with_name('plots.js').read_text(encoding='utf-8')}"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_text(page, template.render(script=Markup(script), digest=digest))  # noqa: S704 - our own
    try:
        config = Config(dvc_dir=str(folder))
        current = config.get("plots", {}).get("html_template")
        if current not in (None, PLOTS):
            return f"{page}: written but not used: plots.html_template is already {current}"
        with config.edit("local") as settings:
            settings.setdefault("plots", {})["html_template"] = PLOTS
    except ConfigError as error:
        raise AtlasError(f"{folder}: fix DVC's settings: {one_line(error)}") from None
    return f"{page}: dvc plots now draws without a network"


@functools.cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, in the version DVC's plots need."""
    import vl_convert  # slow

    versions = [each for each in vl_convert.get_vegalite_versions() if each.startswith(VEGA_LITE)]
    if not versions:
        raise AtlasError(f"vl-convert: no Vega-Lite {VEGA_LITE}x; install another version")
    newest = max(versions, key=lambda version: [int(part) for part in version.split(".")])
    script = vl_convert.javascript_bundle(EXPORTS, vl_version=newest)
    if found := [each for each in PLACEHOLDERS if each in script]:
        raise AtlasError(f"vl-convert: its script contains {found[0]}, which DVC would replace")
    return script
