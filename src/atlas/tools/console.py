"""Print to a terminal or a pipe."""

import sys

from rich.console import Console

PIPE_WIDTH = 160


def plain_console() -> Console:
    """A console that prints text as it is, without markup, emoji or highlighting."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def printable(text: str) -> str:
    """Escape invisible characters, line ends and those that control a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
