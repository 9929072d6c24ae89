"""What a page is put together from: each block is data, and blocks.html.j2 draws it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

Mood = Literal["", "good", "bad"]


@dataclass(frozen=True)
class Tile:
    """A number to see at once, and below it a note and what became of it."""

    label: str
    value: str
    note: str = ""
    change: str = ""
    mood: Mood = ""


@dataclass(frozen=True)
class Tiles:
    """Numbers side by side."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]
    wide: bool = True


@dataclass(frozen=True)
class Words:
    """A paragraph, with a page beside this one as its end; as code, lines to type."""

    kind: ClassVar[str] = "words"
    text: str
    mood: Mood = ""
    code: bool = False
    link: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Facts:
    """What is what, in words: a term and what it stands for."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[tuple[str, str]]
    wide: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a chart's legend: its name, and the class that colours it."""

    name: str
    style: str


@dataclass(frozen=True)
class Chart:
    """A drawing.

    Attributes:
        title: above it.
        svg: an element that takes its colours from the page.
        legend: its lines.
        note: a sentence below it.
    """

    kind: ClassVar[str] = "chart"
    title: str
    svg: str
    legend: Sequence[Line] = ()
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Bar:
    """A row of bars: its label, what its number reads, and its length (0 to 1)."""

    label: str
    text: str
    share: float
    strong: bool = False


@dataclass(frozen=True)
class Bars:
    """Numbers as bars, a row each, under two headings."""

    kind: ClassVar[str] = "bars"
    title: str
    headings: tuple[str, str]
    bars: Sequence[Bar]
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: above it.
        columns: C names.
        rows: C cells each.
        numbers: which columns stand to the right.
        note: a sentence below it.
        mono: whether its cells are text as the model sees it.
        moods: of the last cell of each row, or none.
    """

    kind: ClassVar[str] = "grid"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: Sequence[bool]
    note: str = ""
    mono: bool = False
    moods: Sequence[Mood] = ()
    wide: bool = True


@dataclass(frozen=True)
class Cell:
    """A cell of a heat table: what it reads, and how warm it is (0 to 1)."""

    text: str
    share: float


@dataclass(frozen=True)
class Heat:
    """A table whose cells are coloured by their share."""

    kind: ClassVar[str] = "heat"
    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Sample:
    """A text of the model, and how much of its beginning was given."""

    prompt: str
    text: str


@dataclass(frozen=True)
class Samples:
    """Texts side by side."""

    kind: ClassVar[str] = "samples"
    samples: Sequence[Sample]
    note: str = ""
    wide: bool = True


@dataclass(frozen=True)
class Image:
    """A picture with a title."""

    kind: ClassVar[str] = "image"
    title: str
    source: str
    wide: bool = False


@dataclass(frozen=True)
class Chips:
    """Short texts in a row."""

    kind: ClassVar[str] = "chips"
    title: str
    chips: Sequence[str]
    note: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Folded:
    """Blocks that a click unfolds."""

    kind: ClassVar[str] = "folded"
    title: str
    blocks: Sequence["Block"]
    wide: bool = True


Block = Tiles | Words | Facts | Chart | Bars | Grid | Heat | Samples | Image | Chips | Folded


@dataclass(frozen=True)
class Section:
    """A part of the page with a place in its contents."""

    anchor: str
    title: str
    blocks: Sequence[Block]
    lead: str = ""
