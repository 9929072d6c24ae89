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
    return {
        "words": [{"word": word, "count": n} for word, n in total.frequent_words()[:ROWS]],
        "characters": [
            {"character": VISIBLE.get(character, character), "count": count}
            for character, count in total.frequent_characters()[:ROWS]
        ],
        "scripts": [{"script": name, "letters": n} for name, n in total.scripts().most_common()],
        "lengths": [{"words": span, "documents": n} for span, n in total.document_lengths()],
    }
