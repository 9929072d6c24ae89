"""Print to a terminal or a pipe."""

import sys
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table

from atlas.errors import escape_controls

PIPE_WIDTH = 160


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[object]], right: Collection[int] = ()
) -> None:
    """Print a table of plain text; ``right`` lists the columns that hold numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(titles))
    for number, title in enumerate(titles):
        table.add_column(
            title,
            justify="right" if number in right else "left",
            no_wrap=number < len(titles) - 1,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(printable(str(cell)) for cell in row))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def printable(text: str) -> str:
    """Escape invisible characters, line ends and those that control a terminal."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def show_text(text: str, end: str = "\n") -> None:
    """Print the text of a model or a user: as it is to a pipe, without controls to a terminal."""
    print(escape_controls(text) if sys.stdout.isatty() else text, end=end, flush=True)
