"""Hard-wrapped prose to one line per paragraph.

Books typed for a terminal break their lines at some 70 characters. To a model such a break is a
character like any other, learnt at places that mean nothing. Verse, lists and tables break their
lines on purpose, so a paragraph is joined only where its line ends are explained by the width of
the page: the first word of the next line would not have fitted on it.
"""

import re
from collections.abc import Iterator
from itertools import groupby, pairwise

WIDEST_WRAP = 100  # characters; a longer line was never wrapped
UNWRAPPED_SHARE = 0.25  # of the characters in such lines: the text has whole paragraphs in lines
RAGGED = 8  # characters that a typist may have left free before the margin
MARGIN_PERCENTILE = 0.95  # a few lines stick out over the margin
VERSE_STARTS = 3  # so many lines that all begin with a capital are verse

NOT_PROSE = re.compile(
    r"""
    ^\s*(?: [-*+\u2022]\s | [(]?(?:\d{1,2}|[a-z])[.)]\s | \#{1,6}\s | > | ``` | ~~~ )  # Markdown
    | \t | [|] | \S\ {3,}\S                                                         # columns
    """,
    re.VERBOSE,
)
GLUED_DASH = re.compile(r"[^\s\-\u2014](?:-+|\u2014)$")  # the wrap came after it, not a blank


def unwrap(text: str) -> str:
    r"""Joins the hard-wrapped lines of prose; leaves all other lines as they are.

    A paragraph ends at a blank line, or before a line that is indented deeper than those around
    it. A line that ends in a dash is joined without a blank (``well-\nknown``, ``yes--\nno``);
    hyphenation is not undone. A text that would still consist mostly of short lines is verse, a
    play or a list with a little prose in it, and is left alone.

    Args:
        text: a document with ``\n`` line ends.

    Returns:
        The text; unwrapping it again changes nothing, and no character but blanks and line ends
        differs.
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
    long = sum(length for length in lengths if length > WIDEST_WRAP)
    return long > 0 and long >= UNWRAPPED_SHARE * sum(lengths)


def _paragraphs(lines: list[str]) -> Iterator[list[str]]:
    """Runs of lines: all blank, or a paragraph of which only the first line may be indented."""
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
    """The width at which the document was wrapped: what its lines reach, paragraph ends aside."""
    lengths = sorted(
        len(line.rstrip())
        for paragraph in paragraphs
        for line in paragraph[:-1]
        if 0 < len(line.rstrip()) <= WIDEST_WRAP
    )
    return lengths[int(MARGIN_PERCENTILE * (len(lengths) - 1))] if lengths else 0


def _is_wrapped(paragraph: list[str], margin: int) -> bool:
    first, *others = paragraph
    if not others or not first.strip() or any(map(_indentation, others)):
        return False
    if any(map(NOT_PROSE.search, paragraph)) or "".join(paragraph).isupper():
        return False
    if len(others) >= VERSE_STARTS and all(line[0].isupper() for line in others):
        return False
    return all(
        margin - RAGGED <= len(line.rstrip()) + 1 + len(following.split(maxsplit=1)[0])
        and len(line.rstrip()) <= WIDEST_WRAP
        for line, following in pairwise(paragraph)
    )


def _join(paragraph: list[str]) -> str:
    joined = paragraph[0].rstrip()
    parts = [joined]
    for line in paragraph[1:]:
        line = line.strip()
        parts.append(line if GLUED_DASH.search(parts[-1]) else f" {line}")
    return "".join(parts)
