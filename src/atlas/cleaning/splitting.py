"""Which part of the text trains, which validates, which tests.

How much of what validates and tests stands in the training text as well.

Counted are runs of 13 words, as for GPT-3 (Brown et al. 2020): long enough that two texts hardly
ever share one by chance. Where there are too many to hold, those are counted whose hash falls
into a sample.
"""

import hashlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.documents import SPLITS, Document, Split
from atlas.cleaning.words import Hashes, Rows, runs
from atlas.params.schema import CleanParams

FEW_DOCUMENTS = 100  # below it, `auto` splits each document by position
LOOK_AHEAD = 4096  # characters within which a cut looks for a line end


def split_by(clean: CleanParams, documents: int) -> Literal["document", "position"]:
    """How to split a corpus of so many documents."""
    if clean.split_by == "auto":
        return "position" if documents < FEW_DOCUMENTS else "document"
    return clean.split_by


def split_of(key: bytes, clean: CleanParams) -> Split:
    """The split of a whole document, from the key of its text and the seed alone.

    The same text is in the same split wherever it stands, so exact copies never leak, and
    documents that are added later move none of the others.
    """
    seeded = hashlib.blake2b(key, digest_size=8, salt=clean.seed.to_bytes(16, "little"))
    point = int.from_bytes(seeded.digest(), "little") / 2**64
    if point < clean.test:
        return "test"
    return "val" if point < clean.test + clean.val else "train"


def cut(document: Document, clean: CleanParams) -> Iterator[tuple[Split, Document]]:
    """Cuts a document in three: train first, then val, then test.

    Each cut is moved on to the next line start if one is near, so that no line is torn.
    The parts joined are the document.
    """
    text = document.text
    first = _line_start(text, round(len(text) * (1 - clean.val - clean.test)))
    second = max(first, _line_start(text, round(len(text) * (1 - clean.test))))
    parts = (text[:first], text[first:second], text[second:])
    for split, part in zip(SPLITS, parts, strict=True):
        if part:
            yield split, Document(f"{document.id}#{split}", document.source, part)


def _line_start(text: str, position: int) -> int:
    if position <= 0 or position >= len(text) or text[position - 1] == "\n":
        return position
    for separator in ("\n", " "):
        found = text.find(separator, position, position + LOOK_AHEAD)
        if found >= 0:
            return found + 1
    return position


RUN = 13  # words
MOST_RUNS = 1 << 18  # of val, or of test, that are held
BYTES_A_WORD = 4  # less than there are, so that the sample rather grows


def sampling(size: int) -> int:
    """One run in so many is looked at, a power of two, where a split has so many bytes."""
    return 1 << max(0, (size // BYTES_A_WORD - 1) // MOST_RUNS).bit_length()


def sampled_runs(words: Rows, one_in: int) -> Hashes:
    """The runs of some texts that are in the sample. (runs,)."""
    found = runs(words, RUN).hashes
    sampled: Hashes = found[found % np.uint64(one_in) == 0]
    return sampled


def mark(held_out: Hashes, training: Hashes, seen: NDArray[np.bool_]) -> None:
    """Marks those held-out runs (sorted, each once) that are among the training text's. (runs,)."""
    if len(held_out):
        place = np.minimum(np.searchsorted(held_out, training), len(held_out) - 1)
        seen[place[held_out[place] == training]] = True
