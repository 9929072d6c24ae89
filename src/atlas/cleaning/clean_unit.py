"""One task of clean: a unit of raw files to parts of clean documents.

What a unit came to lies in a folder of its own that appears whole, so that a run that was killed
goes on with the units that are missing.
"""

import json
import os
import platform
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlas.cleaning.documents import Document
from atlas.cleaning.parts import PartWriter
from atlas.cleaning.reading.read import Layout, Rejection, read_piece
from atlas.cleaning.reading.units import Unit
from atlas.cleaning.sketches import Bands
from atlas.cleaning.steps.apply import clean_item
from atlas.files import partial_path, put_in_place, remove, write_json
from atlas.params import CleanParams

PART_DOCUMENTS = 1 << 16  # so many documents' keys are held at once
RESULT, REJECTED = "result.json", "rejected.jsonl"


@dataclass(frozen=True)
class UnitTask:
    """A unit, how to clean it, and the folder for what it comes to."""

    unit: Unit
    clean: CleanParams
    folder: Path


@dataclass(frozen=True)
class UnitResult:
    """What a unit came to.

    Attributes:
        folder: its parts ("000", "001", ...) and its rejections.
        documents: how many each part has.
        reasons: how many were rejected for each.
        changes: how often each step changed something.
        noted: how many texts were in each encoding that had to be guessed, and how many bytes
            meant nothing in theirs.
    """

    folder: Path
    documents: list[int]
    reasons: dict[str, int]
    changes: dict[str, int]
    noted: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> "UnitResult":
        """Reads what an earlier run left."""
        values: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return cls(folder, **values)


def clean_unit(task: UnitTask) -> UnitResult:
    """Cleans a unit, unless an earlier run has.

    Raises:
        AtlasError: a file can't be read, and bad files stop.
    """
    final = task.folder / f"{task.unit.number:06d}"
    if final.exists():
        return UnitResult.read(final)
    writer = f"{final.name}.{platform.node()}-{os.getpid()}"
    folder = partial_path(final.with_name(writer))
    remove(folder)
    folder.mkdir(parents=True)
    parts = _Parts(folder, task.clean)
    reasons: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    noted: Counter[str] = Counter()
    layout = Layout(task.clean.text_field, task.clean.separator)
    with (folder / REJECTED).open("wb") as rejected:
        for piece in task.unit.pieces:
            for item in read_piece(piece, layout, noted):
                cleaned = clean_item(item, task.clean, changes)
                if isinstance(cleaned, Rejection):
                    reasons[cleaned.reason] += 1
                    rejected.write(rejection_line(cleaned))
                else:
                    parts.write(cleaned)
    result = UnitResult(final, parts.close(), dict(reasons), dict(changes), dict(+noted))
    values = asdict(result)
    del values["folder"]
    write_json(folder / RESULT, values)
    if final.exists():  # a cluster asks another machine as well when this one seems lost
        remove(folder)
        return UnitResult.read(final)
    put_in_place(folder, final)
    return result


def remove_half_done(folder: Path) -> None:
    """Removes what killed workers left; nobody may be working on a unit in ``folder``."""
    for left in folder.glob(".*.partial"):
        remove(left)


def rejection_line(rejection: Rejection) -> bytes:
    """A line of rejected.jsonl."""
    return json.dumps(asdict(rejection)).encode() + b"\n"


class _Parts:
    """Writes documents into as many parts as they need."""

    def __init__(self, folder: Path, clean: CleanParams) -> None:
        self._folder = folder
        self._clean = clean
        self._bands = Bands.of(clean.similarity) if clean.duplicates == "near" else None
        self._counts: list[int] = []
        self._part: PartWriter | None = None

    def write(self, document: Document) -> None:
        if self._part is None:
            self._part = PartWriter(self._folder / f"{len(self._counts):03d}", self._bands)
        self._part.write(document, self._clean)
        if len(self._part) == PART_DOCUMENTS:
            self._end_part()

    def close(self) -> list[int]:
        self._end_part()
        return self._counts

    def _end_part(self) -> None:
        if self._part is not None:
            self._part.close()
            self._counts.append(len(self._part))
            self._part = None
