"""All that the stages wrote of a run, in one structure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atlas.errors import AtlasError
from atlas.tools.report.reading import Reader, Table, Value


@dataclass(frozen=True)
class Picture:
    """A picture that a stage made.

    Attributes:
        name: of its file, without the ending.
        content: the bytes of a PNG file.
    """

    name: str
    content: bytes


@dataclass(frozen=True)
class Results:
    """What a folder of metrics holds.

    Attributes:
        folder: it.
        metrics: of each stage, by its name.
        timing: seconds and speeds of each stage, by its name.
        tables: by their place, as ``train`` or ``corpus/words``.
        samples: Markdown that evaluate wrote, and each sample an indented block; "" for none.
        pictures: in the order of their names.
        pages: other pages in the folder.
        problems: a line for each file that could not be read, or not to its end.
    """

    folder: Path
    metrics: Mapping[str, Mapping[str, Value]]
    timing: Mapping[str, Mapping[str, Value]]
    tables: Mapping[str, Table]
    samples: str
    pictures: tuple[Picture, ...]
    pages: tuple[str, ...]
    problems: tuple[str, ...]

    def value(self, stage: str, name: str) -> Value | None:
        """A metric of a stage; None if it is not there."""
        return self.metrics.get(stage, {}).get(name)

    def number(self, stage: str, name: str) -> float | None:
        """A metric that is a number; None if it is not there or none."""
        found = self.value(stage, name)
        return found if isinstance(found, int | float) else None

    def table(self, place: str, *columns: str) -> Table | None:
        """A table that has these columns; None if there is none."""
        found = self.tables.get(place)
        return found if found is not None and found.has(*columns) else None


def read_results(folder: Path) -> Results:
    """Reads the results of a project.

    Raises:
        AtlasError: there are none.
    """
    reader = Reader(folder)
    metrics = {path.stem: reader.values(path) for path in reader.below(".", ".json")}
    timing = {path.stem: reader.values(path) for path in reader.below("timing", ".json")}
    tables = {}
    for place in (".", "corpus", "tables", "timing"):
        for path in reader.below(place, ".csv"):
            if table := reader.table(path):
                tables[path.relative_to(folder).with_suffix("").as_posix()] = table
    pictures = tuple(
        Picture(path.stem, content)
        for path in reader.below("pictures", ".png")
        if (content := reader.picture(path)) is not None
    )
    if not (any(metrics.values()) or tables):
        raise AtlasError(f"{folder}: no results yet; `dvc repro` makes them")
    return Results(
        folder=folder,
        metrics={stage: values for stage, values in metrics.items() if values},
        timing={stage: values for stage, values in timing.items() if values},
        tables=tables,
        samples=reader.text(folder / "samples.md") or "",
        pictures=pictures,
        pages=tuple(path.name for path in reader.below(".", ".html")),
        problems=tuple(reader.problems),
    )
