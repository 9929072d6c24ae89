"""Cleans a corpus: raw files to documents in three splits, with a count of all that was done.

Four passes, each over tasks that may run anywhere: units of raw files are cleaned, copies are
found, val and test are written, and last the training text, in which val and test are looked
for. Between them only numbers are held.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlas.cleaning.clean_unit import (
    REJECTED,
    UnitResult,
    UnitTask,
    clean_unit,
    rejection_line,
    remove_half_done,
)
from atlas.cleaning.duplicates import COPY, Copies, exact_copies, near_copies
from atlas.cleaning.leakage import sampling
from atlas.cleaning.parts import Parts
from atlas.cleaning.reading.read import Rejection
from atlas.cleaning.reading.units import plan
from atlas.cleaning.shards import ShardPlan, ShardTask, SplitBy, plan_shards, write_shard
from atlas.cleaning.splits import SPLITS, Split
from atlas.cleaning.splitting import split_by
from atlas.cleaning.statistics import Statistics
from atlas.cleaning.steps.apply import CHANGES
from atlas.cleaning.words import Hashes, distinct, joined
from atlas.corpora.manifest import read_raw_files
from atlas.errors import AtlasError
from atlas.files import write_json
from atlas.parallel import in_order
from atlas.params import CleanParams

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
            "corpus.name and corpus.path say what was read"
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
    if clean.duplicates == "keep":
        return np.empty(0, COPY)
    copies = exact_copies(parts)
    if clean.duplicates == "near":
        near = near_copies(parts, clean.similarity, copies["number"])
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
