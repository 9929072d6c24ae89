"""`atlas offline-plots`: let `dvc plots` draw without a network.

DVC's page loads Vega from the web and is blank without it. DVC accepts another template and fills
in `{plot_divs}` and `{refresh_tag}`; this one contains Vega, taken from vl-convert. Template and
setting go into .dvc, where git ignores them: they belong to this clone.
"""

import functools
from pathlib import Path

import vl_convert
from dvc.config import Config, ConfigError
from jinja2 import Template

from atlas.errors import AtlasError, one_line
from atlas.pipeline.files import write_text

PAGE = "offline_plots.html"  # in .dvc, listed in its .gitignore
VEGA_LITE = "5."  # the version DVC writes its plots in
EXPORTS = "window.vega = vega; window.vegaLite = vegaLite; window.vegaEmbed = vegaEmbed;"
PLACEHOLDERS = ("{scripts}", "{plot_divs}", "{refresh_tag}", "</script")


def write_offline_plots(root: Path) -> str:
    """Write the template and select it unless another is set; return a line about it."""
    folder = root / ".dvc"
    if not folder.is_dir():
        raise AtlasError(f"{folder}: missing; run `dvc init`")
    page = folder / PAGE
    template = Path(__file__).with_name("plots.html.j2").read_text(encoding="utf-8")
    write_text(page, Template(template).render(script=vega_script()))
    try:
        config = Config(dvc_dir=str(folder))
        current = config.get("plots", {}).get("html_template")
        if current not in (None, PAGE):
            return f"{page}: written but not used: plots.html_template is already {current}"
        with config.edit("local") as settings:
            settings.setdefault("plots", {})["html_template"] = PAGE
    except ConfigError as error:
        raise AtlasError(f"{folder}: fix DVC's settings: {one_line(error)}") from None
    return f"{page}: dvc plots now draws without a network"


@functools.cache
def vega_script() -> str:
    """Vega, Vega-Lite and vega-embed as one script, in the version DVC's plots need."""
    versions = [each for each in vl_convert.get_vegalite_versions() if each.startswith(VEGA_LITE)]
    if not versions:
        raise AtlasError(f"vl-convert: no Vega-Lite {VEGA_LITE}x; install another version")
    newest = max(versions, key=lambda version: [int(part) for part in version.split(".")])
    script = vl_convert.javascript_bundle(EXPORTS, vl_version=newest)
    if found := [each for each in PLACEHOLDERS if each in script]:
        raise AtlasError(f"vl-convert: its script contains {found[0]}, which DVC would replace")
    return script
