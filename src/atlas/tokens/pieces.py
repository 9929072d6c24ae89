"""Pieces made visible, and printed."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from atlas.tokens.tokenizer import SPACE_MARK, Tokenizer

SIGNS = str.maketrans({SPACE_MARK: "·", " ": "·", "\n": "⏎", "\t": "⇥"})
STYLES = ("black on cyan", "black on green", "black on yellow", "black on magenta")


def visible(piece: str) -> str:
    """A piece with its blanks, line ends and tabs as signs."""
    return piece.translate(SIGNS)


def print_pieces(tokenizer: Tokenizer, text: str) -> None:
    """Prints the id and the piece of each token of a text, and how many bytes one stands for."""
    console = Console(highlight=False)
    ids = tokenizer.encode(text)
    table = Table("id", "piece", box=None, pad_edge=False, header_style="bold")
    for number, identity in enumerate(ids):
        piece = visible(tokenizer.piece(identity))
        table.add_row(str(identity), Text(piece, STYLES[number % len(STYLES)]))
    console.print(table)
    size = len(text.encode())
    share = f", {size / len(ids):.2f} bytes a token" if ids else ""
    console.print(f"{len(ids):,} tokens, {size:,} bytes{share}")
