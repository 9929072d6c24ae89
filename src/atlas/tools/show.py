"""`atlas show`: print the results of the last run."""

import logging
from pathlib import Path

from rich.console import Console
from rich.table import Table

from atlas.errors import AtlasError
from atlas.tools.report.results import read_results
from atlas.tools.report.wording import exact

logger = logging.getLogger(__name__)


def print_results(metrics: Path) -> None:
    """Print the metrics of every stage and the samples; damaged files are named on stderr."""
    results = read_results(metrics)
    if not (results.metrics and results.samples):
        raise AtlasError(f"{metrics}: no results yet; run `dvc repro`")
    table = Table("", "metric", "value", box=None, pad_edge=False, header_style="bold")
    stage = ""
    for file, values in results.metrics.items():
        for name, value in values.items():
            shown = file.removeprefix("timing/")
            table.add_row("" if shown == stage else shown, name, exact(value))
            stage = shown
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(table)
    console.print()
    console.print(results.samples)
    for problem in results.problems:
        logger.warning("%s", problem)
