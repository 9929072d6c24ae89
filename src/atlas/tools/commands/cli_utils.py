"""What the user gives: the project around them, and texts."""

import os
import sys
from pathlib import Path

from atlas.errors import AtlasError


def find_project() -> Path:
    """The project around the current folder.

    Raises:
        AtlasError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise AtlasError(f"{here}: not inside an Atlas project (no params.yaml and dvc.yaml above it)")


def given_text(argument: str) -> str:
    """A text from the command line or from standard input; broken UTF-8 becomes U+FFFD."""
    given = sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)
    return given.decode("utf-8", errors="replace")
