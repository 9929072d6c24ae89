"""Tables and lines for a terminal, or for a pipe."""

import sys

from rich.console import Console

WIDTH = 160  # where there is no terminal


def plain_console() -> Console:
    """Prints text as it is, without marks of its own."""
    width = None if sys.stdout.isatty() else WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def printable(text: str) -> str:
    """A text in one line, what does not show, or would steer a terminal, as a Python escape."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
