"""The statistics of a corpus as tables that DVC plots."""

from collections.abc import Iterable

from atlas.cleaning.statistics import Statistics

ROWS = 40  # of a plot that can be read
Row = dict[str, int | float | str]
VISIBLE = {" ": "blank", "\n": "line end", "\t": "tab", "\u00a0": "no-break space"}


def tables(splits: Iterable[Statistics]) -> dict[str, list[Row]]:
    """Words, characters, scripts and document lengths of all splits together, by name."""
    total = Statistics()
    for split in splits:
        total.merge(split)
    characters = [(VISIBLE.get(each, each), n) for each, n in total.frequent_characters()[:ROWS]]
    return {
        "words": _rows("word", "count", total.frequent_words()[:ROWS]),
        "characters": _rows("character", "count", characters),
        "scripts": _rows("script", "letters", total.scripts().most_common()),
        "lengths": _rows("words", "documents", total.document_lengths()),
    }


def _rows(name: str, number: str, found: list[tuple[str, int]]) -> list[Row]:
    """Rows of a table, at least one: equations have no letters, and a plot wants something."""
    return [{name: each, number: count} for each, count in found or [("none", 0)]]
