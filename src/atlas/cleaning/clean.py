"""Clean a corpus: raw files to documents in three splits, with counts of everything that changed.

There are four passes, each over tasks that can run anywhere: clean units of raw files, find
duplicates, write val and test, and write train while looking for text of val and test in it.
Between passes only numbers are in memory.

The result of a unit is a folder that appears whole, so an interrupted run continues with the
missing units.
"""

import json
import logging
import os
import platform
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from atlas.cleaning.documents import SPLITS, Document, Split
from atlas.cleaning.duplicates import (
    DUPLICATE,
    BandHasher,
    Bands,
    Duplicates,
    exact_duplicates,
    near_duplicates,
    text_key,
)
from atlas.cleaning.reading.read import Layout, Rejection, Unit, plan, read_piece
from atlas.cleaning.splits import (
    ShardPlan,
    ShardTask,
    SplitBy,
    plan_shards,
    resolve_split_by,
    sample_modulus,
    split_of,
    write_shard,
)
from atlas.cleaning.staging import ChunkWriter, StagedCorpus
from atlas.cleaning.statistics import Statistics
from atlas.cleaning.steps.apply import CHANGES, clean_item
from atlas.cleaning.words import Hashes, concatenate, distinct
from atlas.corpora.manifest import read_raw_files
from atlas.errors import AtlasError
from atlas.params.schema import CleanParams
from atlas.pipeline.files import partial_path, put_in_place, remove, write_json
from atlas.pipeline.parallel import in_order

MAX_CHUNK = 1 << 16  # documents, whose keys are held in memory at once
RESULT, REJECTED, STATISTICS = "result.json", "rejected.jsonl", "statistics.json"
HELD_OUT: tuple[Split, ...] = ("val", "test")

Metrics = dict[str, int | float | str]


@dataclass(frozen=True)
class UnitTask:
    """A unit to clean into a subfolder of ``folder``."""

    unit: Unit
    clean: CleanParams
    folder: Path


@dataclass(frozen=True)
class UnitResult:
    """The result of cleaning a unit.

    Attributes:
        folder: its chunks ("000", "001", ...) and rejections.
        documents: number of documents per chunk.
        reasons: rejections per reason.
        changes: changes per step.
        notes: texts per guessed encoding, and bytes that were invalid in theirs.
    """

    folder: Path
    documents: list[int]
    reasons: dict[str, int]
    changes: dict[str, int]
    notes: dict[str, int]

    @classmethod
    def read(cls, folder: Path) -> "UnitResult":
        """Read the result of an earlier run."""
        values: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return cls(folder, **values)


def clean_unit(task: UnitTask) -> UnitResult:
    """Clean a unit, unless an earlier run has.

    Raises:
        AtlasError: a file can't be read and ``clean.bad_files`` is "stop".
    """
    final = task.folder / f"{task.unit.number:06d}"
    if final.exists():
        return UnitResult.read(final)
    folder = partial_path(final.with_name(f"{final.name}.{platform.node()}-{os.getpid()}"))
    remove(folder)
    folder.mkdir(parents=True)
    writer = _UnitWriter(folder, task.clean)
    reasons: Counter[str] = Counter()
    changes: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    layout = Layout(task.clean.text_field, task.clean.separator)
    with (folder / REJECTED).open("wb") as rejected:
        for piece in task.unit.pieces:
            for item in read_piece(piece, layout, notes):
                cleaned = clean_item(item, task.clean, changes)
                if isinstance(cleaned, Rejection):
                    reasons[cleaned.reason] += 1
                    rejected.write(_rejection_line(cleaned))
                else:
                    writer.write(cleaned)
    result = UnitResult(final, writer.close(), dict(reasons), dict(changes), dict(+notes))
    values = asdict(result)
    del values["folder"]
    write_json(folder / RESULT, values)
    if final.exists():  # a cluster repeats the task of a machine that seems lost
        remove(folder)
        return UnitResult.read(final)
    put_in_place(folder, final)
    return result


def _rejection_line(rejection: Rejection) -> bytes:
    return json.dumps(asdict(rejection)).encode() + b"\n"


class _UnitWriter:
    """Write documents to chunks of MAX_CHUNK documents, with the keys that clean needs later."""

    def __init__(self, folder: Path, clean: CleanParams) -> None:
        self._folder = folder
        self._clean = clean
        self._counts: list[int] = []
        self._chunk: ChunkWriter | None = None
        self._hasher: BandHasher | None = None

    def write(self, document: Document) -> None:
        if self._chunk is None:
            self._chunk = ChunkWriter(self._folder / f"{len(self._counts):03d}")
            if self._clean.duplicates == "near":
                self._hasher = BandHasher(Bands.for_threshold(self._clean.jaccard_threshold))
        key = text_key(document.text)
        self._chunk.write(document, key, split_of(key, self._clean))
        if self._hasher:
            self._hasher.add(document.text)
        if len(self._chunk) == MAX_CHUNK:
            self._close_chunk()

    def close(self) -> list[int]:
        """Return the number of documents per chunk."""
        self._close_chunk()
        return self._counts

    def _close_chunk(self) -> None:
        if self._chunk is not None:
            self._chunk.close(self._hasher.keys() if self._hasher else None)
            self._counts.append(len(self._chunk))
            self._chunk = None


def clean_corpus(
    raw: Path, folder: Path, clean: CleanParams, unfinished: Path
) -> tuple[Metrics, dict[Split, Statistics]]:
    """Clean raw files into documents.

    Args:
        raw: folder of raw files with a manifest.
        folder: created; receives ``{train,val,test}/*.jsonl``, ``rejected.jsonl`` and
            ``statistics.json``.
        clean: params of the stage.
        unfinished: keeps finished units of an interrupted run for the next one.

    Returns:
        The metrics of the stage, and the statistics of each split.

    Raises:
        AtlasError: a file is not text (and ``clean.bad_files`` is "stop"), no document is left,
            or a requested split is empty.
    """
    folder.mkdir(parents=True)
    results = _clean_units(raw, clean, unfinished.resolve() / "units")
    documents = StagedCorpus.from_folders(
        (result.folder / f"{number:03d}", count)
        for result in results
        for number, count in enumerate(result.documents)
    )
    reasons = _sum(result.reasons for result in results)
    if not len(documents):
        raise AtlasError(
            f"{raw}: no document is left of this corpus ({_summary(reasons)}); "
            "check corpus.name and corpus.files.path"
        )
    duplicates = _find_duplicates(documents, clean)
    exact = int(duplicates["exact"].sum())
    reasons += Counter(exact_duplicate=exact, near_duplicate=len(duplicates) - exact)
    kept = len(documents) - len(duplicates)
    split_by = resolve_split_by(clean, kept)
    corpus = _Corpus(documents, duplicates, clean, split_by, folder.resolve())
    _write_rejected(folder / REJECTED, results, corpus)
    if reasons:
        logging.getLogger(__name__).warning(
            "rejected %s; data/clean/rejected.jsonl lists each with the reason", _summary(reasons)
        )
    statistics, leakage = _write_splits(corpus)
    _check_splits(statistics, corpus, kept)
    write_json(folder / STATISTICS, {split: statistics[split].report() for split in SPLITS})
    changes = _sum(result.changes for result in results)
    notes = _sum(result.notes for result in results)
    metrics: Metrics = {
        "documents_in": kept + reasons.total(),
        "documents_kept": kept,
        "split_by": corpus.split_by,
    }
    metrics |= {f"rejected_{reason}": count for reason, count in sorted(reasons.items())}
    metrics |= {f"changed_{step}": changes[step] for step in CHANGES}
    metrics |= dict(sorted(notes.items()))
    for split, counts in statistics.items():
        metrics[f"{split}_documents"] = counts.documents
        metrics[f"{split}_characters"] = counts.characters.total()
        metrics[f"{split}_words"] = counts.words
    return metrics | leakage, statistics


@dataclass(frozen=True)
class _Corpus:
    """The cleaned documents and how to split them."""

    documents: StagedCorpus
    duplicates: Duplicates
    clean: CleanParams
    split_by: SplitBy
    folder: Path


def _clean_units(raw: Path, clean: CleanParams, folder: Path) -> list[UnitResult]:
    units = plan(raw.resolve(), read_raw_files(raw))
    for partial in folder.glob(".*.partial"):  # left by killed workers
        remove(partial)
    return list(in_order(clean_unit, [UnitTask(unit, clean, folder) for unit in units], "clean"))


def _find_duplicates(documents: StagedCorpus, clean: CleanParams) -> Duplicates:
    if clean.duplicates is None:
        return np.empty(0, DUPLICATE)
    duplicates = exact_duplicates(documents)
    if clean.duplicates == "near":
        near = near_duplicates(documents, clean.jaccard_threshold, duplicates["number"])
        duplicates = np.sort(np.concatenate((duplicates, near)), order="number")
    return duplicates


def _write_rejected(path: Path, results: list[UnitResult], corpus: _Corpus) -> None:
    """Write the rejections of all units in order, and then the duplicates."""
    with path.open("wb") as file:
        for result in results:
            file.write((result.folder / REJECTED).read_bytes())
        for duplicate in corpus.duplicates:
            identity, original = (
                corpus.documents.document(int(duplicate[key])).id for key in ("number", "of")
            )
            if duplicate["exact"]:
                rejection = Rejection(identity, "exact_duplicate", f"of {original}")
            else:
                detail = f"of {original}, Jaccard index {duplicate['jaccard']:.3f}"
                rejection = Rejection(identity, "near_duplicate", detail)
            file.write(_rejection_line(rejection))


def _write_splits(corpus: _Corpus) -> tuple[dict[Split, Statistics], Metrics]:
    """Write all shards; return the statistics of each split and the leakage of val and test."""
    statistics = {split: Statistics() for split in SPLITS}
    excluded = corpus.duplicates["number"]
    plans = {
        split: plan_shards(corpus.documents, excluded, corpus.clean, corpus.split_by, split)
        for split in SPLITS
    }
    modulus = sample_modulus(max(sum(size for size, _ in plans[split]) for split in HELD_OUT))
    samples: dict[Split, list[Hashes]] = {split: [] for split in HELD_OUT}
    tasks = [
        task for split in HELD_OUT for task in _shard_tasks(corpus, split, plans[split], modulus)
    ]
    written = in_order(write_shard, tasks, "write val and test")
    for task, result in zip(tasks, written, strict=True):
        statistics[task.split].merge(result.statistics)
        samples[task.split].append(result.ngrams)
    held_out = {split: distinct(concatenate(found)) for split, found in samples.items()}
    all_held_out = distinct(concatenate(list(held_out.values())))
    seen = np.zeros(len(all_held_out), bool)
    tasks = _shard_tasks(corpus, "train", plans["train"], modulus, all_held_out)
    for result in in_order(write_shard, tasks, "write train"):
        statistics["train"].merge(result.statistics)
        seen |= result.seen
    for split, counts in statistics.items():
        if not counts.documents:  # DVC's cache doesn't keep empty folders
            (corpus.folder / split / "00000.jsonl").touch()
    leakage: Metrics = {}
    for split, ngrams in held_out.items():
        leaked = seen[np.searchsorted(all_held_out, ngrams)]
        leakage[f"{split}_leakage"] = round(float(leaked.mean()), 6) if len(leaked) else 0.0
    return statistics, leakage


def _shard_tasks(
    corpus: _Corpus,
    split: Split,
    plans: list[ShardPlan],
    modulus: int,
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
            modulus,
            held_out,
        )
        for number, (_, slices) in enumerate(plans)
    ]


def _check_splits(statistics: dict[Split, Statistics], corpus: _Corpus, documents: int) -> None:
    for split, counts in statistics.items():
        if not counts.documents and (split != "test" or corpus.clean.test > 0):
            other = " or clean.split_by=position" if corpus.split_by == "document" else ""
            raise AtlasError(
                f"clean.{split}: the {split} split is empty ({documents} documents, split by "
                f"{corpus.split_by}); use more text, a larger share{other}"
            )


def _sum(counts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return total


def _summary(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it is empty"
