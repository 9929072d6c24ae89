"""Join hard-wrapped prose into one line per paragraph.

Plain-text books break lines at about 70 characters. To a model such a line break is a character
like any other, in places that mean nothing. Verse, lists and tables break lines on purpose, so a
paragraph is joined only if the page width explains all of its line breaks: the first word of the
next line would not have fitted.
"""

import re
from collections.abc import Iterator
from itertools import groupby, pairwise

MAX_WRAP_WIDTH = 100  # characters; longer lines were never wrapped
UNWRAPPED_SHARE = 0.25  # share of characters in longer lines that marks a text as unwrapped
MAX_SLACK = 8  # characters that may stay free before the margin
MARGIN_PERCENTILE = 0.95  # a few lines stick out over the margin
MIN_VERSE_LINES = 3  # lines that all start with a capital

NOT_PROSE = re.compile(
    r"""
    ^\s*(?: [-*+\u2022]\s | [(]?(?:\d{1,2}|[a-z])[.)]\s | \#{1,6}\s | > | ``` | ~~~ )  # Markdown
    | \t | [|] | \S\ {3,}\S                                                         # columns
    """,
    re.VERBOSE,
)
GLUED_DASH = re.compile(r"[^\s\-\u2014](?:-+|\u2014)$")  # the break replaced no space


def unwrap(text: str) -> str:
    r"""Join the hard-wrapped lines of prose and keep all other lines.

    A paragraph ends at a blank line, or before a line with more indentation than its neighbors.
    A line that ends in a dash is joined without a space (``well-\nknown``, ``yes--\nno``);
    hyphenation is not undone. If the result would still consist mostly of short lines, the text
    is verse, a play or a list with a little prose, and stays as it is.

    Only whitespace changes, and unwrapping a second time changes nothing.
    """
    if _is_unwrapped(text):
        return text
    lines = text.split("\n")
    paragraphs = list(_paragraphs(lines))
    margin = _margin(paragraphs)
    joined = "\n".join(
        _join(paragraph) if _is_wrapped(paragraph, margin) else "\n".join(paragraph)
        for paragraph in paragraphs
    )
    return joined if _is_unwrapped(joined) else text


def _is_unwrapped(text: str) -> bool:
    lengths = [len(line.strip()) for line in text.split("\n")]
    long = sum(length for length in lengths if length > MAX_WRAP_WIDTH)
    return long > 0 and long >= UNWRAPPED_SHARE * sum(lengths)


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Split into runs of blank lines and paragraphs, where only a first line is indented."""
    for filled, group in groupby(lines, key=lambda line: bool(line.strip())):
        block = list(group)
        if not filled:
            yield block
            continue
        left = min(map(_indentation, block))
        start = 0
        for i in range(1, len(block)):
            if _indentation(block[i]) > left:
                yield block[start:i]
                start = i
        yield block[start:]


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


def _margin(paragraphs: list[list[str]]) -> int:
    """Estimate the wrap width from all lines except the last of each paragraph."""
    lengths = sorted(
        len(line.rstrip())
        for paragraph in paragraphs
        for line in paragraph[:-1]
        if 0 < len(line.rstrip()) <= MAX_WRAP_WIDTH
    )
    return lengths[int(MARGIN_PERCENTILE * (len(lengths) - 1))] if lengths else 0


def _is_wrapped(paragraph: list[str], margin: int) -> bool:
    first, *others = paragraph
    if not others or not first.strip() or any(map(_indentation, others)):
        return False
    if any(map(NOT_PROSE.search, paragraph)) or "".join(paragraph).isupper():
        return False
    if len(others) >= MIN_VERSE_LINES and all(line[0].isupper() for line in others):
        return False
    return all(
        margin - MAX_SLACK <= len(line.rstrip()) + 1 + len(following.split(maxsplit=1)[0])
        and len(line.rstrip()) <= MAX_WRAP_WIDTH
        for line, following in pairwise(paragraph)
    )


def _join(paragraph: list[str]) -> str:
    parts = [paragraph[0].rstrip()]
    for line in paragraph[1:]:
        line = line.strip()
        parts.append(line if GLUED_DASH.search(parts[-1]) else f" {line}")
    return "".join(parts)
