"""Cleans a corpus: raw files to documents in three splits, with a count of all that was done.

Four passes, each over tasks that may run anywhere: units of raw files are cleaned, copies are
found, val and test are written, and last the training text, in which val and test are looked
for. Between them only numbers are held.

One task of clean: a unit of raw files to parts of clean documents.

What a unit came to lies in a folder of its own that appears whole, so that a run that was killed
goes on with the units that are missing.
"""

import json
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.cleaning.documents import SPLITS, Document, Split
from atlas.cleaning.duplicates import COPY, Copies, exact_copies, near_copies
from atlas.cleaning.reading.read import Layout, Rejection, Unit, plan, read_piece
from atlas.cleaning.shards import (
    Parts,
    PartWriter,
    ShardPlan,
    ShardTask,
    SplitBy,
    plan_shards,
    write_shard,
)
from atlas.cleaning.sketches import Bands
from atlas.cleaning.splitting import sampling, split_by
from atlas.cleaning.statistics import Statistics
from atlas.cleaning.steps.apply import CHANGES, clean_item
from atlas.cleaning.words import Hashes, distinct, joined
from atlas.corpora.manifest import read_raw_files
from atlas.errors import AtlasError
from atlas.params.schema import CleanParams
from atlas.pipeline.files import partial_path, put_in_place, remove, write_json
from atlas.pipeline.parallel import in_order

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
    layout = Layout(task.clean.text_field, task.clean.separator or "")
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
        self._bands = Bands.of(clean.jaccard_threshold) if clean.duplicates == "near" else None
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


Metrics = dict[str, int | float | str]
STATISTICS = "statistics.json"
HELD_OUT: tuple[Split, ...] = ("val", "test")


def clean_corpus(
    raw: Path, folder: Path, clean: CleanParams, unfinished: Path
) -> tuple[Metrics, dict[Split, Statistics]]:
    """Reads raw files, writes clean documents below ``folder``.

    Args:
        raw: folder of raw files with a manifest.
        folder: created; receives ``{train,val,test}/*.jsonl``, ``rejected.jsonl`` and
            ``statistics.json``.
        clean: what to do.
        unfinished: keeps what is done from a run that is killed to the next one.

    Returns:
        The metrics of the stage, and what is in each split.

    Raises:
        AtlasError: a file is not text (and bad files stop), nothing is left, or a split that
            was asked for is empty.
    """
    folder.mkdir(parents=True)
    units = plan(raw.resolve(), read_raw_files(raw))
    done = unfinished.resolve() / "units"
    remove_half_done(done)
    results = list(in_order(clean_unit, [UnitTask(unit, clean, done) for unit in units], "clean"))
    parts = Parts.of(
        (result.folder / f"{number:03d}", count)
        for result in results
        for number, count in enumerate(result.documents)
    )
    reasons = _sum(result.reasons for result in results)
    if not len(parts):
        raise AtlasError(
            f"{raw}: no document is left of this corpus ({_list(reasons)}); "
            "corpus.name and corpus.files.path name what was read"
        )
    copies = _copies(parts, clean)
    exact = int(copies["exact"].sum())
    reasons += Counter(exact_duplicate=exact, near_duplicate=len(copies) - exact)
    kept = len(parts) - len(copies)
    corpus = _Corpus(parts, copies, clean, split_by(clean, kept), folder.resolve())
    _write_rejected(folder / REJECTED, results, corpus)
    if reasons:
        print(
            f"note: left out {_list(reasons)}; data/clean/rejected.jsonl has each with its reason",
            file=sys.stderr,
        )
    statistics, leakage = _write_splits(corpus)
    _check_none_empty(statistics, corpus, kept)
    write_json(folder / STATISTICS, {split: statistics[split].report() for split in SPLITS})
    changes = _sum(result.changes for result in results)
    noted = _sum(result.noted for result in results)
    metrics: Metrics = {
        "documents_in": kept + reasons.total(),
        "documents_kept": kept,
        "split_by": corpus.split_by,
    }
    metrics |= {f"rejected_{reason}": count for reason, count in sorted(reasons.items())}
    metrics |= {f"changed_{step}": changes[step] for step in CHANGES}
    metrics |= dict(sorted(noted.items()))
    for split, counts in statistics.items():
        metrics[f"{split}_documents"] = counts.documents
        metrics[f"{split}_characters"] = counts.characters.total()
        metrics[f"{split}_words"] = counts.words
    return metrics | leakage, statistics


@dataclass(frozen=True)
class _Corpus:
    """The documents that were cleaned, and how they are divided."""

    parts: Parts
    copies: Copies
    clean: CleanParams
    split_by: SplitBy
    folder: Path


def _copies(parts: Parts, clean: CleanParams) -> Copies:
    if clean.duplicates is None:
        return np.empty(0, COPY)
    copies = exact_copies(parts)
    if clean.duplicates == "near":
        near = near_copies(parts, clean.jaccard_threshold, copies["number"])
        copies = np.sort(np.concatenate((copies, near)), order="number")
    return copies


def _write_rejected(path: Path, results: list[UnitResult], corpus: _Corpus) -> None:
    """What was rejected while it was cleaned, in its order, and then the copies."""
    with path.open("wb") as file:
        for result in results:
            file.write((result.folder / REJECTED).read_bytes())
        for copy in corpus.copies:
            identity, of = (corpus.parts.document(int(copy[key])).id for key in ("number", "of"))
            reason, detail = "exact_duplicate", f"of {of}"
            if not copy["exact"]:
                reason, detail = (
                    "near_duplicate",
                    f"of {of}, Jaccard index {copy['similarity']:.3f}",
                )
            file.write(rejection_line(Rejection(identity, reason, detail)))


def _write_splits(corpus: _Corpus) -> tuple[dict[Split, Statistics], Metrics]:
    """Writes all shards; returns what is in each split, and what of val and test is in train."""
    statistics = {split: Statistics() for split in SPLITS}
    left_out = corpus.copies["number"]
    plans = {
        split: plan_shards(corpus.parts, left_out, corpus.clean, corpus.split_by, split)
        for split in SPLITS
    }
    one_in = sampling(max(sum(size for size, _ in plans[split]) for split in HELD_OUT))
    runs: dict[Split, list[Hashes]] = {split: [] for split in HELD_OUT}
    tasks = [task for split in HELD_OUT for task in _tasks(corpus, split, plans[split], one_in)]
    written = in_order(write_shard, tasks, "write val and test")
    for task, result in zip(tasks, written, strict=True):
        statistics[task.split].merge(result.statistics)
        runs[task.split].append(result.runs)
    held_out = {split: distinct(joined(found)) for split, found in runs.items()}
    looked_for = distinct(joined(list(held_out.values())))
    seen = np.zeros(len(looked_for), bool)
    tasks = _tasks(corpus, "train", plans["train"], one_in, looked_for)
    for result in in_order(write_shard, tasks, "write train"):
        statistics["train"].merge(result.statistics)
        seen |= result.seen
    for split, counts in statistics.items():
        if not counts.documents:  # DVC's cache keeps no empty folder
            (corpus.folder / split / "00000.jsonl").touch()
    leakage: Metrics = {}
    for split, runs_of_split in held_out.items():
        found = seen[np.searchsorted(looked_for, runs_of_split)]
        leakage[f"{split}_leakage"] = round(float(found.mean()), 6) if len(found) else 0.0
    return statistics, leakage


def _tasks(
    corpus: _Corpus,
    split: Split,
    plans: list[ShardPlan],
    one_in: int,
    held_out: Hashes | None = None,
) -> list[ShardTask]:
    folder = corpus.folder / split
    folder.mkdir()
    return [
        ShardTask(
            folder / f"{number:05d}.jsonl",
            split,
            corpus.split_by,
            corpus.clean,
            slices,
            one_in,
            held_out,
        )
        for number, (_, slices) in enumerate(plans)
    ]


def _check_none_empty(statistics: dict[Split, Statistics], corpus: _Corpus, documents: int) -> None:
    for split, counts in statistics.items():
        if not counts.documents and (split != "test" or corpus.clean.test > 0):
            other = " or clean.split_by=position" if corpus.split_by == "document" else ""
            raise AtlasError(
                f"clean.{split}: {split} gets nothing of this corpus ({documents} documents, "
                f"split by {corpus.split_by}); use more text, a larger share{other}"
            )


def _sum(counts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _list(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it is empty"
