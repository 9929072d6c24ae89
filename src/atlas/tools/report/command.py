"""``atlas report``: writes the page on the last run."""

from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import write_text
from atlas.tools.report.history import read_history
from atlas.tools.report.page import render
from atlas.tools.report.results import read_results

PAGE = "report.html"


def write_report(root: Path) -> Path:
    """Writes metrics/report.html of a project; returns where it is.

    Raises:
        AtlasError: there are no results yet.
    """
    folder = root / "metrics"
    if not folder.is_dir():
        raise AtlasError(f"{folder}: no results yet; `dvc repro` makes them")
    page = folder / PAGE
    write_text(page, render(read_results(folder), read_history(root, folder)))
    return page
