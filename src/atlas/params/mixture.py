"""The corpora of ``corpus.mix``: their labels, and how often an epoch visits each."""

import re
from collections.abc import Iterable, Mapping, Sequence
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
        raise AtlasError(f"data: the corpus {unknown[0]} is not in corpus.mix; run `dvc repro`")
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


def mix_conflicts(mix: Sequence["MixEntry"]) -> Iterable[str]:
    """Yield what is wrong with a list of corpora."""
    for entry in mix:
        if entry.path is not None and entry.name != "files":
            yield f"corpus.mix: {entry.name} takes no path: only files does"
    yield from _duplicates(mix)
    shares = [entry.share for entry in mix if entry.share is not None]
    if shares and len(shares) < len(mix):
        bare = next(label_of(entry) for entry in mix if entry.share is None)
        yield f"corpus.mix: {bare} has no share: give each corpus a share, or none of them"
    elif shares and abs(sum(shares) - 1) > SHARE_TOLERANCE:
        yield f"corpus.mix: the shares add up to {sum(shares):g}: make it 1"
    for entry in mix:
        if entry.share is not None and entry.weight is not None:
            yield f"corpus.mix: {label_of(entry)} has a weight and a share: keep one of them"


def _duplicates(mix: Sequence["MixEntry"]) -> Iterable[str]:
    seen: dict[str, MixEntry] = {}
    for entry in mix:
        label, other = label_of(entry), seen.get(label_of(entry))
        place = Path(entry.path or "").absolute()
        for each in seen.values():
            path = Path(each.path or "").absolute()
            if entry.path and each.path and (path in place.parents or place in path.parents):
                yield (
                    f"corpus.mix: {entry.path} and {each.path} overlap: their texts would be in "
                    "two corpora, so give folders that do not contain each other"
                )
        if other is not None and other.name == entry.name and other.path == entry.path:
            yield f"corpus.mix lists {label} twice: keep one, with the sum of the weights"
        elif other is not None:
            yield f"corpus.mix: two corpora are called {label}: add a label to one of them"
        seen[label] = entry
