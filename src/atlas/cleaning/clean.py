"""Cleans a corpus: raw files to documents in three splits, with a count of all that was done."""

import json
import sys
from collections import Counter
from pathlib import Path

from atlas.cleaning.documents import Document, DocumentWriter, read_documents
from atlas.cleaning.normalising import normalise, storable
from atlas.cleaning.reading import Rejection, UnreadableFile, read_raw
from atlas.cleaning.splits import SPLITS, Split
from atlas.cleaning.splitting import cut, split_by, split_of
from atlas.corpora.manifest import read_manifest
from atlas.errors import AtlasError
from atlas.files import remove
from atlas.params import CleanParams

Metrics = dict[str, int | float | str]


def clean_corpus(raw: Path, folder: Path, clean: CleanParams) -> Metrics:
    """Reads raw files, writes clean documents below ``folder``.

    Documents pass one at a time: through the steps of cleaning into a spool, and from there,
    once their number is known, into ``train``, ``val`` and ``test``.

    Args:
        raw: folder of raw files with a manifest.
        folder: receives ``{train,val,test}/*.jsonl`` and ``rejected.jsonl``; created.
        clean: what to do.

    Returns:
        The metrics of the stage.

    Raises:
        AtlasError: a file is not text (and bad files stop), nothing is left, or a split that
            was asked for is empty.
    """
    spool = folder / "spool"
    changes: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    guesses: Counter[str] = Counter()
    with DocumentWriter(spool) as kept, (folder / "rejected.jsonl").open("wb") as rejected:
        for file in read_manifest(raw):
            for item in read_raw(raw / file.name, file.name, guesses):
                result = _clean_one(item, clean, changes)
                if isinstance(result, Document):
                    kept.write(result)
                else:
                    reasons[result.reason] += 1
                    line = json.dumps(result.__dict__, ensure_ascii=True)
                    rejected.write(line.encode() + b"\n")
    if reasons:
        print(
            f"note: left out {_list(reasons)}; data/clean/rejected.jsonl has each with its reason",
            file=sys.stderr,
        )
    if not kept.count:
        raise AtlasError(
            f"{raw}: no document is left of this corpus ({_list(reasons)}); "
            "corpus.name and corpus.path say what was read"
        )
    how = split_by(clean, kept.count)
    parts = _split(spool, folder, clean, how, kept.count)
    remove(spool)
    metrics: Metrics = {
        "documents_in": kept.count + sum(reasons.values()),
        "documents_kept": kept.count,
        "characters": kept.characters,
        "words": kept.words,
        "split_by": how,
    }
    metrics |= {f"rejected_{reason}": count for reason, count in sorted(reasons.items())}
    metrics |= {f"changed_{step}": count for step, count in sorted(changes.items())}
    metrics |= {
        f"guessed_{encoding}": count for encoding, count in sorted(guesses.items()) if count
    }
    for split, writer in parts.items():
        metrics[f"{split}_documents"] = writer.count
        metrics[f"{split}_characters"] = writer.characters
    return metrics


def _clean_one(
    item: Document | Rejection | UnreadableFile, clean: CleanParams, changes: Counter[str]
) -> Document | Rejection:
    match item:
        case UnreadableFile(name, reason, detail) if clean.bad_files == "stop":
            raise AtlasError(
                f"{name}: not a text file ({reason}: {detail}); take it out of the corpus, "
                "or set clean.bad_files=reject to go on without it"
            )
        case UnreadableFile(name, reason, detail):
            return Rejection(name, reason, detail)
        case Document(identity, source, text):
            text = normalise(text, clean, changes)
            if not text.strip():
                return Rejection(identity, "empty")
            return Document(storable(identity), storable(source), text)
        case _:
            return item


def _split(
    spool: Path, folder: Path, clean: CleanParams, how: str, total: int
) -> dict[Split, DocumentWriter]:
    parts = {split: DocumentWriter(folder / split) for split in SPLITS}
    for document in read_documents(spool):
        if how == "document":
            parts[split_of(document.text, clean)].write(document)
        else:
            for split, part in cut(document, clean):
                parts[split].write(part)
    for writer in parts.values():
        writer.close()
    for split, writer in parts.items():
        if not writer.count and (split != "test" or clean.test > 0):
            other = " or clean.split_by=position" if how == "document" else ""
            raise AtlasError(
                f"clean.{split}: {split} gets nothing of this corpus ({total} documents, split "
                f"by {how}); use more text, a larger share{other}"
            )
    return parts


def _list(reasons: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items()) or "it is empty"
