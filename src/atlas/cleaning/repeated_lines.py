"""Find and remove lines that many documents share: navigation, licences, page headers.

A line counts once per document, without the spaces around it, and equal documents count once.
The first pass only counts lines by checksum, in a table of fixed size. The second pass counts the
lines whose checksum is frequent enough, so memory stays bounded whatever the size of the corpus.
"""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from atlas.cleaning.documents import Document
from atlas.cleaning.duplicates import exact_duplicates
from atlas.cleaning.splits import Chunk, StagedCorpus
from atlas.pipeline.parallel import in_order

CHECKSUMS = 1 << 20
MIN_DOCUMENTS = 2  # that share a line

Numbers = NDArray[np.int64]


def find_repeated_lines(corpus: StagedCorpus, fraction: float) -> frozenset[str]:
    """Find the lines that occur in more than a fraction of the documents."""
    copies = exact_duplicates(corpus)["number"]
    total = np.zeros(CHECKSUMS, np.int64)
    for counts in in_order(partial(_count_checksums, copies=copies), corpus.chunks, "count lines"):
        total += counts
    minimum = max(fraction * (len(corpus) - len(copies)), MIN_DOCUMENTS - 1)
    lines = Counter[str]()
    count = partial(_count_lines, copies=copies, frequent=total > minimum)
    for found in in_order(count, corpus.chunks, "repeated lines"):
        lines.update(found)
    return frozenset(line for line, documents in lines.items() if documents > minimum)


def remove_lines(document: Document, lines: frozenset[str]) -> tuple[Document, int]:
    """Remove some lines, with blank ones between them and an end of the text; count characters.

    Conversations stay as they are.
    """
    before = document.text.split("\n")
    removed = [number for number, line in enumerate(before) if line.strip() in lines]
    if document.messages or not removed:
        return document, 0
    kept = sorted({number for number, line in enumerate(before) if line.strip()} - {*removed})
    text = ""
    if kept:
        start = kept[0] if removed[0] < kept[0] else 0
        stop = kept[-1] + 1 if removed[-1] > kept[-1] else len(before)
        stay = set(range(start, stop)) - {*removed}
        text = "\n".join(before[number] for number in sorted(stay))
    return replace(document, text=text), len(document.text) - len(text)


def _count_checksums(chunk: Chunk, copies: Numbers) -> NDArray[np.uint32]:
    """Count the documents of a chunk by the checksums of their lines. (CHECKSUMS,)."""
    counts = np.zeros(CHECKSUMS, np.uint32)
    for lines in _lines(chunk, copies):
        counts[list({_checksum(line) for line in lines})] += 1
    return counts


def _count_lines(chunk: Chunk, copies: Numbers, frequent: NDArray[np.bool_]) -> Counter[str]:
    """Count the documents of a chunk by those of their lines that have a frequent checksum."""
    counts = Counter[str]()
    for lines in _lines(chunk, copies):
        counts.update(line for line in lines if frequent[_checksum(line)])
    return counts


def _lines(chunk: Chunk, copies: Numbers) -> Iterator[set[str]]:
    """Yield the distinct lines of each document that is not a copy, without blank ones."""
    numbers = np.setdiff1d(np.arange(chunk.first, chunk.first + chunk.count), copies)
    for document in chunk.documents(numbers - chunk.first):
        if not document.messages:
            yield {line.strip() for line in document.text.split("\n")} - {""}


def _checksum(line: str) -> int:
    return zlib.crc32(line.encode()) % CHECKSUMS
