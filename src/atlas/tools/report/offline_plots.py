"""``atlas offline-plots``: the page of ``dvc plots`` with its drawing script inside.

DVC's own page loads Vega from the web and is blank without it. DVC takes another template, in
which it replaces ``{plot_divs}`` and ``{refresh_tag}``; without ``{scripts}`` in it, nothing is
loaded. The script is what vl-convert carries. It goes into .dvc, beside what git does not keep,
and so does the setting: a clone in which this never ran works as DVC does.
"""

import functools
from pathlib import Path

import vl_convert
from dvc.config import Config, ConfigError
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from atlas.errors import AtlasError, one_line
from atlas.pipeline.files import write_text

TEMPLATE = "plots.html.j2"
PAGE = "offline_plots.html"  # in .dvc, listed in its .gitignore
VEGA_LITE = "5."  # what DVC's plots are written in
GIVES = "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"
REPLACED = ("{scripts}", "{plot_divs}", "{refresh_tag}", "</script")


def write_offline_plots(root: Path) -> str:
    """Writes the template, and has DVC use it where no other one is set.

    Args:
        root: of a DVC project.

    Returns:
        What was done, in a line.

    Raises:
        AtlasError: there is no .dvc folder, or its settings cannot be read.
    """
    folder = root / ".dvc"
    if not folder.is_dir():
        raise AtlasError(f"{folder}: missing; `dvc init` makes it")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = folder / PAGE
    script = Markup(drawing_script())  # noqa: S704 - of a library, and nobody's words
    write_text(page, environment.get_template(TEMPLATE).render(script=script))
    try:
        config = Config(dvc_dir=str(folder))
        other = config.get("plots", {}).get("html_template")
        if other not in (None, PAGE):
            return f"{page}: written, not used: DVC's plots.html_template is {other} already"
        with config.edit("local") as settings:
            settings.setdefault("plots", {})["html_template"] = PAGE
    except ConfigError as error:
        raise AtlasError(f"{folder}: DVC's settings: {one_line(error)}; mend them") from None
    return f"{page}: dvc plots draws with it, network or not"


@functools.cache
def drawing_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, of the version that DVC's plots want.

    Raises:
        AtlasError: this vl-convert has no such version.
    """
    known = [each for each in vl_convert.get_vegalite_versions() if each.startswith(VEGA_LITE)]
    if not known:
        raise AtlasError(f"vl-convert: it has no Vega-Lite {VEGA_LITE}x; install another version")
    newest = max(known, key=lambda each: [int(part) for part in each.split(".")])
    script = vl_convert.javascript_bundle(GIVES, vl_version=newest)
    if found := [each for each in REPLACED if each in script]:
        raise AtlasError(f"vl-convert: its script holds {found[0]}, which DVC or a page would cut")
    return script
