"""``atlas study``: one question, several runs, one table and one plot."""

import os
from typing import Annotated

import typer

from atlas.tools.commands.cli_utils import find_project


def study(
    name: Annotated[
        str | None, typer.Argument(help="A file in studies/, without .yaml; none lists them.")
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Run nothing: table and plot of the runs there are.")
    ] = False,
) -> None:
    """Run what a study has not run yet; write docs/studies/NAME.md with its table and plot."""
    from atlas.tools.studies.run import list_studies, run_study, write_study

    root = find_project()
    os.chdir(root)
    if name is None:
        list_studies(root)
    elif table:
        write_study(root, name)
    else:
        run_study(root, name)
