"""Paragraphs in a list of lines: runs of lines that are not blank."""

from collections.abc import Iterator


def next_filled(lines: list[str], start: int) -> int:
    """Index of the first line from ``start`` on that is not blank; the number of lines if none."""
    while start < len(lines) and not lines[start].strip():
        start += 1
    return start


def next_blank(lines: list[str], start: int) -> int:
    """Index of the first blank line from ``start`` on; the number of lines if there is none."""
    while start < len(lines) and lines[start].strip():
        start += 1
    return start


def paragraph_spans(lines: list[str], start: int = 0) -> Iterator[tuple[int, int]]:
    """First line of, and line after, each paragraph from ``start`` on."""
    while (top := next_filled(lines, start)) < len(lines):
        start = next_blank(lines, top)
        yield top, start


def paragraph_above(lines: list[str], start: int) -> tuple[int, int]:
    """First line of, and line after, the last paragraph before ``start``; 0, 0 if there is none."""
    stop = start
    while stop and not lines[stop - 1].strip():
        stop -= 1
    top = stop
    while top and lines[top - 1].strip():
        top -= 1
    return top, stop


def flat(lines: list[str]) -> str:
    """Lines as one, with one blank for every run of blanks and line ends."""
    return " ".join(" ".join(lines).split())


def trimmed(lines: list[str]) -> list[str]:
    """Lines from the first to the last that is not blank."""
    return lines[next_filled(lines, 0) : paragraph_above(lines, len(lines))[1]]
