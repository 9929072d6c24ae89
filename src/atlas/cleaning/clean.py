"""Clean a corpus: raw files to documents in three splits, with counts of everything that changed.

There are four passes, each over tasks that can run on any machine: clean units of raw files, find
duplicates, write val and test, and write train while looking for text of val and test in it.
Between passes, memory holds only numbers, no text.

Each unit's result is a folder that appears only when complete, so an interrupted run continues
with the missing units.
"""

import functools
import json
import logging
import operator
import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import orjson

from atlas.cleaning import splits
from atlas.cleaning.documents import SPLITS, Document, Split, batches, render_messages
from atlas.cleaning.duplicates import HASH_BATCH, Duplicates, band_keys, find_duplicates, text_key
from atlas.cleaning.reading.pieces import Item, Notes, Rejection, TextBlock, UnreadableFile
from atlas.cleaning.reading.read import Unit, plan, read_piece
from atlas.cleaning.reading.texts import DIVIDERS, divide
from atlas.cleaning.repeated_lines import find_repeated_lines, remove_lines
from atlas.cleaning.statistics import Statistics
from atlas.cleaning.steps.filters import FILTERS
from atlas.cleaning.steps.gutenberg import strip_gutenberg
from atlas.cleaning.steps.unicode import fix_mojibake, normalize, surrogates
from atlas.cleaning.steps.unwrapping import unwrap
from atlas.cleaning.words import Hashes, concatenate, distinct
from atlas.corpora.manifest import read_raw_files
from atlas.errors import AtlasError, one_line
from atlas.params.schema import CleanParams
from atlas.pipeline.files import partial_path, put_in_place, remove, write_json
from atlas.pipeline.parallel import in_order

MAX_CHUNK = 1 << 16  # documents, whose keys are held in memory at once
RESULT, REJECTED, STATISTICS = "result.json", "rejected.jsonl", "statistics.json"
HELD_OUT: tuple[Split, ...] = ("val", "test")
CHANGED = {  # what the steps count, in their order
    "unquoted_rows": "rows of tables with quotes in their text",
    "mojibake": "lines of mojibake",
    "c1_controls": "C1 controls",
    "line_ends": "line ends",
    "surrogates": "lone surrogates",
    "compose": "documents composed (NFC)",
    "gutenberg_books": "books of Project Gutenberg",
    "unwrapped": "documents unwrapped",
}
REMOVED = (  # characters, by kind
    "separators",  # with blank parts
    "ansi_escapes",
    "overstrikes",
    "control_characters",
    "soft_hyphens",
    "bidi_marks",
    "zero_width",
    "gutenberg_header",
    "gutenberg_footer",
    "gutenberg_credits",
    "transcriber_notes",
    "blank_lines",  # at both ends of books
    "repeated_lines",
)
MAX_LISTED = 20  # files or warnings named on stderr
MAX_LEAKAGE = 0.05  # share of val or test that also occurs in train

Metrics = dict[str, int | float | str]


@dataclass(frozen=True)
class UnitResult:
    """The folder of a cleaned unit, and what it contains."""

    folder: Path  # its chunks ("000", "001", ...) and rejections
    documents: list[int]  # per chunk
    reasons: dict[str, int]  # rejections per reason
    counts: dict[str, int]  # see Notes
    guessed: dict[str, str]
    warnings: list[str]

    @classmethod
    def read(cls, folder: Path) -> "UnitResult":
        """Read the result in a finished folder."""
        return cls(folder, **json.loads((folder / RESULT).read_text(encoding="utf-8")))


def clean_unit(unit: Unit, clean: CleanParams, folder: Path, *, is_mix: bool = False) -> UnitResult:
    """Clean a unit into a subfolder of ``folder``, unless an earlier run already did.

    In a mix, the first folder of a raw file, and so of the ids of its documents, is its corpus.
    """
    final = folder / f"{unit.number:06d}"
    notes = Notes()

    def items() -> Iterator[Item]:
        for piece in unit.pieces:
            for item in read_piece(piece, clean, notes):
                for cleaned in clean_item(item, clean, notes):
                    if is_mix and isinstance(cleaned, Document):
                        yield replace(cleaned, corpus=cleaned.id.partition("/")[0])
                    else:
                        yield cleaned

    return _write_unit(final, items(), clean, notes)


def remove_lines_from_unit(
    result: UnitResult, lines: frozenset[str], clean: CleanParams, folder: Path
) -> UnitResult:
    """Write a cleaned unit again, without some lines, into a subfolder of ``folder``."""
    notes = Notes(Counter(result.counts), result.guessed, result.warnings)

    def items() -> Iterator[Item]:
        with (result.folder / REJECTED).open("rb") as rejected:
            for line in rejected:
                yield Rejection(**json.loads(line))
        for chunk in _staged([result]).chunks:
            for document in chunk.documents(range(chunk.count)):
                shorter, removed = remove_lines(document, lines)
                notes.counts["repeated_lines"] += removed
                if shorter.text:
                    yield _filtered(shorter, clean)
                else:
                    detail = "it consists of lines that many documents have"
                    yield Rejection(document.id, "repeated_lines", detail)

    return _write_unit(folder / result.folder.name, items(), clean, notes)


def _write_unit(final: Path, items: Iterator[Item], clean: CleanParams, notes: Notes) -> UnitResult:
    """Write the documents and rejections of a unit, unless an earlier run already did."""
    if final.exists():
        return UnitResult.read(final)
    partial = partial_path(final.with_name(f"{final.name}.{platform.node()}-{os.getpid()}"))
    remove(partial)
    partial.mkdir(parents=True)
    reasons = Counter[str]()

    def documents() -> Iterator[Document]:
        for item in items:
            if isinstance(item, Rejection):
                reasons[item.reason] += 1
                rejected.write(_rejection_line(item))
            else:
                yield item

    with (partial / REJECTED).open("wb") as rejected:
        counts = write_chunks(documents(), partial, clean)
    result = {"documents": counts, "reasons": reasons} | vars(notes)
    (partial / RESULT).write_bytes(orjson.dumps(result))  # atomic with its folder
    if final.exists():  # a cluster reruns the task of a machine that it believes lost
        remove(partial)
    else:
        put_in_place(partial, final)
    return UnitResult.read(final)


def clean_item(item: Item, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Clean and divide a text; explain what is rejected."""
    if isinstance(item, UnreadableFile) and clean.bad_files == "stop":
        if item.reason in ("no_text_key", "no_text_column"):
            raise AtlasError(f"{item.id}: {item.detail} (clean.bad_files=reject skips such files)")
        raise AtlasError(
            f"{item.id}: not readable as text ({item.reason}: {item.detail}); remove it from the "
            "corpus, or set clean.bad_files=reject to skip it"
        )
    if isinstance(item, Rejection):
        yield item
        return
    messages = item.messages
    if messages:
        contents = (
            "\n".join(_clean_text(each["content"], clean, notes.counts)) for each in messages
        )
        pairs = zip(messages, contents, strict=True)
        messages = [message | {"content": content} for message, content in pairs]
        texts = [render_messages(messages) if any(each["content"] for each in messages) else ""]
    else:
        texts = _clean_text(item.text, clean, notes.counts)
    source = surrogates(item.source)[0]
    for number, text in enumerate(texts, start=1):
        identity = surrogates(f"{item.id}#{number}" if len(texts) > 1 else item.id)[0]
        document = Document(identity, source, text, messages=messages)
        if isinstance(item, TextBlock) and clean.documents in DIVIDERS:
            parts: Iterable[Document] = divide(document, DIVIDERS[clean.documents], notes)
        else:
            parts = [document]
        for part in parts:
            yield _filtered(part, clean)


def _filtered(document: Document, clean: CleanParams) -> Item:
    if not document.text.strip():
        return Rejection(document.id, "empty")
    for name in clean.filters:
        failure = FILTERS[name](document.text)
        if failure:
            return Rejection(document.id, name, failure)
    return document


def _clean_text(text: str, clean: CleanParams, changes: Counter[str]) -> list[str]:
    """Clean a text; one that holds several books is divided into these."""
    if clean.fix_mojibake:
        text, lines = fix_mojibake(text)
        changes["mojibake"] += lines
    text = normalize(text, clean, changes)
    texts = _strip_gutenberg(text, clean, changes) if clean.strip_gutenberg else [text]
    if clean.unwrap:
        unwrapped = [unwrap(text) for text in texts]
        changes["unwrapped"] += sum(map(operator.ne, unwrapped, texts))
        texts = unwrapped
    return texts


def _strip_gutenberg(text: str, clean: CleanParams, changes: Counter[str]) -> list[str]:
    books = strip_gutenberg(text, notes=clean.remove_transcriber_notes)
    for book in books:
        changes["gutenberg_books"] += bool(book.removed)
        changes.update(book.removed)
    texts = [book.text for book in books if book.text]
    return texts or [""]


def _rejection_line(rejection: Rejection) -> bytes:
    return json.dumps(asdict(rejection)).encode() + b"\n"


def write_chunks(documents: Iterator[Document], folder: Path, clean: CleanParams) -> list[int]:
    """Write documents and their keys to the chunks "000", "001", ...; return each size."""
    counts: list[int] = []
    for first in documents:
        chunk = folder / f"{len(counts):03d}"
        chunk.mkdir(parents=True)
        rows: list[tuple[int, int, Hashes, int]] = []
        keys: list[Hashes] = []
        with (chunk / splits.DOCUMENTS).open("wb") as file:
            for batch in batches(chain([first], islice(documents, MAX_CHUNK - 1)), HASH_BATCH):
                for document in batch:
                    line, key = document.to_line(), text_key(document.text)
                    point = splits.split_point(key, clean.seed)
                    rows.append((file.tell(), len(line), np.frombuffer(key, "<u8"), point))
                    file.write(line)
                if clean.duplicates == "near":
                    texts = [document.text for document in batch]
                    keys.append(band_keys(texts, clean.jaccard_threshold))
        np.save(chunk / splits.TABLE, np.array(rows, splits.ROW))
        if keys:
            np.save(chunk / splits.BANDS, np.concatenate(keys, axis=1))
        counts.append(len(rows))
    return counts


def clean_corpus(
    raw: Path, folder: Path, clean: CleanParams, unfinished: Path
) -> tuple[Metrics, dict[Split, Statistics]]:
    """Clean raw files into documents; return the metrics, and the statistics of each split.

    ``folder`` is created and receives ``{train,val,test}/*.jsonl``, ``rejected.jsonl`` and
    ``statistics.json``. ``unfinished`` keeps finished units of an interrupted run for the next one.
    """
    folder.mkdir(parents=True)
    folder = folder.resolve()
    units = unfinished.resolve() / "units"
    for partial in units.rglob(".*.partial"):  # left by killed workers
        remove(partial)
    files = read_raw_files(raw)
    corpora = list(dict.fromkeys(file.corpus for file in files if file.corpus))
    results = _clean_units(plan(raw.resolve(), files), clean, units, is_mix=bool(corpora))
    documents = _staged(results)
    reasons = sum((Counter(result.reasons) for result in results), Counter[str]())
    if not len(documents):
        raise AtlasError(
            f"{raw}: no documents are left after cleaning ({_summary(reasons)}); "
            "check corpus.name and corpus.files.path"
        )
    duplicates = find_duplicates(documents, clean)
    exact = int(duplicates["exact"].sum())
    reasons += Counter(exact_duplicate=exact, near_duplicate=len(duplicates) - exact)
    kept = len(documents) - len(duplicates)
    splitting = splits.Splitting.choose(documents, duplicates["number"], clean)
    clean = clean.model_copy(update={"split_by": splitting.by})
    _write_rejected(folder / REJECTED, results, documents, duplicates)
    if reasons:
        logging.getLogger(__name__).warning(
            "rejected %s; data/clean/rejected.jsonl lists each with the reason", _summary(reasons)
        )
    statistics, leakage = _write_splits(documents, duplicates, clean, splitting, folder)
    _check_splits(statistics, clean, kept)
    for corpus in corpora:
        if corpus not in statistics["train"].corpora:
            logging.getLogger(__name__).warning(
                "corpus.mix: no text of %s is left to train on", corpus
            )
    write_json(folder / STATISTICS, {split: statistics[split].report() for split in SPLITS})
    notes = _merge_notes(results)
    metrics: Metrics = {
        "documents_in": kept + reasons.total(),
        "documents_kept": kept,
        "split_by": clean.split_by,
    }
    metrics |= {f"rejected_{reason}": count for reason, count in sorted(reasons.items())}
    metrics |= {f"changed_{step}": notes.counts.pop(step, 0) for step in CHANGED}
    metrics |= {f"removed_{kind}": notes.counts.pop(kind, 0) for kind in REMOVED}
    metrics |= dict(sorted(notes.counts.items()))
    guessed = Counter(notes.guessed.values())
    metrics |= {f"guessed_{encoding}": guessed[encoding] for encoding in sorted(guessed)}
    for split, counts in statistics.items():
        metrics[f"{split}_documents"] = counts.documents
        metrics[f"{split}_characters"] = counts.characters.total()
        metrics[f"{split}_words"] = counts.words
        for corpus in corpora:
            counted = counts.corpora.get(corpus, Counter())
            metrics[f"{split}_documents.{corpus}"] = counted["documents"]
    metrics |= leakage
    _warn(metrics, notes, near=clean.duplicates == "near")
    sizes = ", ".join(f"{statistics[split].documents:,} in {split}" for split in SPLITS)
    logging.getLogger(__name__).info("split by %s: %s", splitting.by, sizes)
    return metrics, statistics


def _clean_units(
    units: list[Unit], clean: CleanParams, folder: Path, *, is_mix: bool
) -> list[UnitResult]:
    """Clean all units; if repeated lines are removed, in two passes, the second with filters."""
    first = clean
    if clean.repeated_lines is not None:
        first = clean.model_copy(update={"filters": (), "duplicates": None})
    clean_one = functools.partial(clean_unit, clean=first, folder=folder, is_mix=is_mix)
    results = list(in_order(clean_one, units, "clean"))
    if clean.repeated_lines is None:
        return results
    lines = find_repeated_lines(_staged(results), clean.repeated_lines)
    shorten = functools.partial(
        remove_lines_from_unit, lines=lines, clean=clean, folder=folder / "without_lines"
    )
    return list(in_order(shorten, results, "remove repeated lines"))


def _staged(results: list[UnitResult]) -> splits.StagedCorpus:
    return splits.StagedCorpus.from_folders(
        (result.folder / f"{number:03d}", count)
        for result in results
        for number, count in enumerate(result.documents)
    )


def _merge_notes(results: list[UnitResult]) -> Notes:
    notes = Notes()
    for result in results:
        notes.counts.update(result.counts)
        notes.guessed |= result.guessed
        notes.warnings += result.warnings
    notes.warnings = list(dict.fromkeys(notes.warnings))  # of all blocks of a file
    return notes


def _warn(metrics: Metrics, notes: Notes, near: bool) -> None:
    """Report on stderr what was changed, removed, replaced or guessed, one line per kind.

    ``near``: near duplicates were removed.
    """
    warn, info = logging.getLogger(__name__).warning, logging.getLogger(__name__).info
    for line in notes.warnings[:MAX_LISTED]:
        warn("%s", line)
    if len(notes.warnings) > MAX_LISTED:
        warn("... and %d more warnings of this kind", len(notes.warnings) - MAX_LISTED)
    if notes.guessed:
        named = [f"{name} ({encoding})" for name, encoding in list(notes.guessed.items())]
        names = ", ".join(named[:MAX_LISTED]) + (", ..." if len(named) > MAX_LISTED else "")
        warn(
            "guessed the encoding of %s: %s; if one is wrong, set clean.encoding",
            *(_count(len(named), "file"), one_line(names)),
        )
    if replaced := int(metrics.get("replaced_bytes", 0)):
        warn("replaced %s that are not text with U+FFFD", _count(replaced, "byte"))
    changed = [
        f"{metrics[f'changed_{step}']:,} {noun}"
        for step, noun in CHANGED.items()
        if metrics[f"changed_{step}"]
    ]
    if changed:
        info("changed %s", ", ".join(changed))
    if conversations := metrics.get("conversations"):
        info("recognized %s conversations; data/clean keeps their messages", conversations)
    removed = {
        name.removeprefix("removed_").replace("_", " "): count
        for name, count in metrics.items()
        if name.startswith("removed_") and isinstance(count, int) and count
    }
    if removed:
        kinds = ", ".join(f"{count:,} of {kind}" for kind, count in removed.items())
        warn("removed %s: %s", _count(sum(removed.values()), "character"), kinds)
    for split in HELD_OUT:
        leakage = metrics[f"{split}_leakage"]
        if isinstance(leakage, float) and leakage > MAX_LEAKAGE:
            fix = "a lower clean.jaccard_threshold" if near else "clean.duplicates=near"
            warn(
                "%.0f%% of the 13-word runs of %s also occur in train, so its loss is flattering; "
                "%s removes more copies",
                *(100 * leakage, split, fix),
            )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _write_rejected(
    path: Path, results: list[UnitResult], documents: splits.StagedCorpus, duplicates: Duplicates
) -> None:
    """Write the rejections of all units in order, and then the duplicates."""
    with path.open("wb") as file:
        for result in results:
            file.write((result.folder / REJECTED).read_bytes())
        for number, original, index, is_exact in duplicates.tolist():
            reason = "exact_duplicate" if is_exact else "near_duplicate"
            similarity = "" if is_exact else f", Jaccard index {index:.3f}"
            detail = f"of {documents.document(original).id}{similarity}"
            file.write(_rejection_line(Rejection(documents.document(number).id, reason, detail)))


def _write_splits(
    documents: splits.StagedCorpus,
    duplicates: Duplicates,
    clean: CleanParams,
    splitting: splits.Splitting,
    folder: Path,
) -> tuple[dict[Split, Statistics], Metrics]:
    """Write all shards; return the statistics of each split and the leakage of val and test."""
    statistics = {split: Statistics() for split in SPLITS}
    excluded = duplicates["number"]
    shards = {
        split: splits.plan_shards(documents, excluded, clean, splitting, split) for split in SPLITS
    }
    sizes = [sum(shard.bytes for shard in shards[split]) for split in HELD_OUT]
    modulus = splits.sample_modulus(max(sizes))
    write = functools.partial(splits.write_shard, folder=folder, clean=clean, modulus=modulus)
    for split in SPLITS:
        (folder / split).mkdir()
    samples: dict[Split, list[Hashes]] = {split: [] for split in HELD_OUT}
    tasks = [shard for split in HELD_OUT for shard in shards[split]]
    written = in_order(write, tasks, "write val and test")
    for shard, (counts, ngrams, _) in zip(tasks, written, strict=True):
        statistics[shard.split].merge(counts)
        samples[shard.split].append(ngrams)
    held_out = {split: distinct(concatenate(ngrams)) for split, ngrams in samples.items()}
    all_held_out = distinct(concatenate(list(held_out.values())))
    seen = np.zeros(len(all_held_out), bool)
    write = functools.partial(write, held_out=all_held_out)
    for counts, _, found in in_order(write, shards["train"], "write train"):
        statistics["train"].merge(counts)
        seen |= found
    for split, counts in statistics.items():
        if not counts.documents:  # DVC's cache doesn't keep empty folders
            (folder / split / "00000.jsonl").touch()
    leakage: Metrics = {}
    for split, ngrams in held_out.items():
        leaked = seen[np.searchsorted(all_held_out, ngrams)]
        leakage[f"{split}_leakage"] = round(float(leaked.mean()), 6) if len(leaked) else 0.0
    return statistics, leakage


def _check_splits(statistics: dict[Split, Statistics], clean: CleanParams, documents: int) -> None:
    for split, counts in statistics.items():
        if not counts.documents and (split != "test" or clean.test > 0):
            other = " or clean.split_by=position" if clean.split_by == "document" else ""
            raise AtlasError(
                f"clean.{split}: the {split} split is empty ({documents} documents, split by "
                f"{clean.split_by}); use more text, a larger share{other}"
            )


def _summary(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it is empty"
