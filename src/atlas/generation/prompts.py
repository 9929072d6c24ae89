"""What is continued where nobody gave a prompt."""

import numpy as np

from atlas.tokens.split import TokenSplit

BEGINNING = 8  # tokens


def beginnings(split: TokenSplit, count: int) -> list[list[int]]:
    """The first tokens of some documents, evenly spread over a split, or their questions.

    The end of a document is no part of its beginning: after it a model begins another one.
    """
    ends = split.document_ends
    chosen = np.linspace(0, len(ends) - 1, min(count, len(ends))).round().astype(int)
    found = []
    for number in chosen:
        ids = split.read(int(ends[number - 1]) if number else 0, int(ends[number])).tolist()
        separator = split.index.separator
        if separator is not None:
            found.append(ids[: ids.index(separator) + 1])
        else:
            text = ids[:-1] if ids[-1] == split.index.eos else ids
            found.append(text[:BEGINNING] or ids)
    return found
