"""The corpora of ``corpus.mix``: their labels, and how often an epoch visits each."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from atlas.errors import AtlasError

if TYPE_CHECKING:
    from atlas.params.schema import MixEntry

SHARE_TOLERANCE = 0.001  # of the sum of all shares: three thirds are written 0.333


def label_of(entry: "MixEntry") -> str:
    """Return the name of a corpus in tables and in data/raw: its label, path or name."""
    stem = re.sub(r"[^\w.-]+", "_", Path(entry.path or "").stem).strip(".")
    return entry.label or stem or entry.name


def visits_per_epoch(mix: Sequence["MixEntry"], sizes: Mapping[str, int]) -> dict[str, Fraction]:
    """Return how often an epoch visits each text of a corpus, exactly, by label.

    That is its weight, or follows from its share of an epoch that is as long as the whole text.
    ``sizes`` are the sizes of the corpora that exist, in tokens or bytes.
    """
    entries = {label_of(entry): entry for entry in mix}
    for label, entry in entries.items():
        if not sizes.get(label) and not entry.optional:
            raise AtlasError(
                f"corpus.mix: {label} has no text to train on (data/clean/rejected.jsonl lists "
                "what clean removed); leave it out, or set optional: true on it"
            )
    if unknown := [label for label in sizes if label not in entries]:
        raise AtlasError(
            f"corpus.mix does not list {unknown[0]}, whose text is in data/; run `dvc repro`"
        )
    present = {label: entry for label, entry in entries.items() if sizes.get(label)}
    if any(entry.share is None for entry in present.values()):
        return {label: exact(entry.weight or 1) for label, entry in present.items()}
    total, shares = sum(sizes.values()), sum(exact(e.share or 0) for e in present.values())
    return {
        label: exact(entry.share or 0) / shares * total / sizes[label]
        for label, entry in present.items()
    }


def exact(number: float) -> Fraction:
    """Return the decimal number that was written, so that 0.1 of 30 windows is 3."""
    return Fraction(str(number))


def mix_conflicts(mix: Sequence["MixEntry"], own_path: str) -> Iterator[str]:
    """Yield what is wrong with a mix; ``own_path`` is where files without a path are."""
    for number, entry in enumerate(mix):
        label = label_of(entry)
        if entry.path is not None and entry.name != "files":
            yield f"corpus.mix: {entry.name} takes no path; only files does"
        if entry.share is not None and entry.weight is not None:
            yield f"corpus.mix: {label} has a weight and a share; keep one of them"
        for other in mix[:number]:
            if problem := _clash(entry, other, own_path):
                yield f"corpus.mix: {problem}"
    shares = [entry.share for entry in mix if entry.share is not None]
    if shares and len(shares) < len(mix):
        without = next(label_of(entry) for entry in mix if entry.share is None)
        yield f"corpus.mix: {without} has no share; give each corpus one, or none"
    elif shares and abs(sum(shares) - 1) > SHARE_TOLERANCE:
        yield f"corpus.mix: the shares add up to {sum(shares):g}; make it 1"


def _clash(entry: "MixEntry", other: "MixEntry", own_path: str) -> str | None:
    """Explain why two corpora can't be in one mix, if they can't."""
    label = label_of(entry)
    if entry.name == other.name:
        if entry.name != "files":
            return f"{entry.name} is listed twice; keep one, with the sum of the weights"
        path, outer = (
            Path(os.path.normpath(Path.cwd() / (each.path or own_path))) for each in (entry, other)
        )
        if path.is_relative_to(outer) or outer.is_relative_to(path):
            return (
                f"{other.path or own_path} and {entry.path or own_path} overlap; give paths that "
                "do not contain each other"
            )
    if label.casefold() == label_of(other).casefold():
        return f"two corpora are called {label}; give one of them another name with label: NAME"
    return None
