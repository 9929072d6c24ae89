"""The curves of the training run that made the served model, for the page."""

import csv
import math
from pathlib import Path

MOST_POINTS = 500  # of a curve


def curves_of(metrics: Path | None) -> dict[str, list[list[float]]]:
    """Steps and losses of training and validation; empty where there are none.

    Args:
        metrics: the folder of a project's metrics; None for a model of no project.
    """
    if metrics is None:
        return {}
    found = {
        "train": _points(metrics / "train.csv", "loss"),
        "train_average": _points(metrics / "train.csv", "loss_average"),
        "val": _points(metrics / "val.csv", "loss"),
    }
    return {name: points for name, points in found.items() if points}


def _points(path: Path, column: str) -> list[list[float]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            points = [[float(row["step"]), float(row[column])] for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError):
        return []
    points = [point for point in points if math.isfinite(point[1])]
    every = -(-len(points) // MOST_POINTS) or 1
    return points[::every]
