"""`atlas show`: print the results of the last run."""

import logging
from pathlib import Path

from atlas.errors import AtlasError
from atlas.tools.console import print_table
from atlas.tools.report.results import read_results
from atlas.tools.report.wording import exact

logger = logging.getLogger(__name__)


def print_results(metrics: Path) -> None:
    """Print the metrics of every stage and the samples; damaged files are named on stderr."""
    results = read_results(metrics)
    if not (results.metrics and results.samples):
        raise AtlasError(f"{metrics}: no results yet; run `dvc repro`")
    rows: list[tuple[str, str, str]] = []
    stage = ""
    for file, values in results.metrics.items():
        for name, value in values.items():
            shown = file.removeprefix("timing/")
            rows.append(("" if shown == stage else shown, name, exact(value)))
            stage = shown
    print_table(("", "metric", "value"), rows)
    print(f"\n{results.samples}")
    for problem in results.problems:
        logger.warning("%s", problem)
