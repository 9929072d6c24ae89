"""Commands on a project: ``atlas model``, ``preset``, ``show`` and ``report``, and checks."""

import os
from pathlib import Path
from typing import Annotated

import typer

from atlas.tools.commands.cli_utils import find_project


def model(
    presets: Annotated[
        list[str] | None, typer.Argument(help="Presets to look at; else params.yaml as it is.")
    ] = None,
) -> None:
    """Print the size of the model that params.yaml describes: weights, operations, memory."""
    from atlas.params.presets import with_presets
    from atlas.tools.model_summary import print_summary

    print_summary(with_presets(find_project(), presets or []))


def overfit_batch(
    steps: Annotated[int, typer.Option(min=1, help="After which it is given up.")] = 500,
) -> None:
    """Learn one batch by heart: a sound model can."""
    _overfit(None, steps)


def overfit_examples(
    count: Annotated[int, typer.Argument(min=1, help="How many windows.")] = 10,
    steps: Annotated[int, typer.Option(min=1, help="After which it is given up.")] = 1000,
) -> None:
    """Learn ten examples by heart, windows of the training text."""
    _overfit(count, steps)


def gradients() -> None:
    """Print what gradient reaches each weight of a new model, and what looks wrong."""
    from atlas.params.schema import load_params
    from atlas.tools.sanity import gradient_flow, print_flow

    root = find_project()
    print_flow(gradient_flow(load_params(root / "params.yaml"), root / "data/tokens"))


def _overfit(windows: int | None, steps: int) -> None:
    """Learns so many windows by heart, or a batch."""
    from atlas.params.schema import load_params
    from atlas.tools.sanity import overfit

    root = find_project()
    params = load_params(root / "params.yaml")
    taken = overfit(params, root / "data/tokens", windows or params.train.batch_size, steps)
    print(f"learned by heart in {taken} steps")


def preset(
    names: Annotated[list[str], typer.Argument(help="One or more; a later one wins.")],
    apply: Annotated[bool, typer.Option("--apply", help="Write into params.yaml.")] = False,
) -> None:
    """Print presets as flags for `dvc exp run`, or write them into params.yaml.

    dvc exp run $(atlas preset small) -S train.lr=3e-4
    """
    from atlas.params import presets

    root = find_project()
    values = presets.overlay(root, names)
    if not apply:
        print(presets.as_flags(values))
        return
    changes = presets.apply(root, values)
    print("\n".join(f"params.yaml: {change}" for change in changes) or "params.yaml: no change")


def show() -> None:
    """Print the metrics of the last run and its samples."""
    from atlas.tools.show import print_results

    os.chdir(find_project())
    print_results(Path("metrics"))


def report() -> None:
    """Write metrics/report.html, a page on the last run that needs no network."""
    from atlas.tools.report.page import write_report

    print(write_report(find_project()).as_uri())


def offline_plots() -> None:
    """Let dvc plots draw without a network, in this clone."""
    from atlas.tools.report.offline_plots import write_offline_plots

    print(write_offline_plots(find_project()))
