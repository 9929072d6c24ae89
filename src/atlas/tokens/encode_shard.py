"""One clean shard to one token shard: what a worker does.

It imports little, as each worker has to do so before it begins.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atlas.cleaning.documents import read_shard
from atlas.tokens.shards import ShardWriter
from atlas.tokens.tokenizer import Tokenizer

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodeTask:
    """A clean shard to encode.

    Attributes:
        source: the clean shard.
        target: the token shard.
        tokenizer: folder of the tokenizer.
        tokenizer_sha256: of its model.
        with_eos: whether each document ends with the id for it.
        separator: the id that each document must hold; None for none.
    """

    source: Path
    target: Path
    tokenizer: Path
    tokenizer_sha256: str
    with_eos: bool
    separator: int | None


@dataclass(frozen=True)
class EncodeResult:
    """What a token shard holds.

    Attributes:
        tokens: ids.
        documents: that they encode.
        bytes: size of those documents in UTF-8.
        counts: how often each id occurs, (V,).
        undivided: documents without the separator.
    """

    tokens: int
    documents: int
    bytes: int
    counts: Counts
    undivided: int


def encode_shard(task: EncodeTask) -> EncodeResult:
    """Encodes a clean shard."""
    tokenizer = load_once(task.tokenizer, task.tokenizer_sha256)
    writer = ShardWriter(task.target, tokenizer.vocab_size, tokenizer.sha256)
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    size = undivided = 0
    unended = 0  # separators of a document that goes on in the next block

    def texts() -> Iterator[str]:
        nonlocal size
        for document in read_shard(task.source):
            size += len(document.text.encode())
            yield document.text

    for block in tokenizer.blocks(texts(), with_eos=task.with_eos):
        writer.write(block.ids, block.ends)
        counts += np.bincount(block.ids, minlength=tokenizer.vocab_size)
        if task.separator is not None:
            found = np.concatenate(([unended], block.ids == task.separator)).cumsum()
            at_ends = found[np.asarray(block.ends, np.int64)]
            undivided += int((np.diff(at_ends, prepend=0) == 0).sum())
            unended = int(found[-1] - (at_ends[-1] if len(at_ends) else 0))
    writer.close()
    return EncodeResult(writer.tokens, writer.documents, size, counts, undivided)


@lru_cache(maxsize=1)
def load_once(folder: Path, tokenizer_sha256: str) -> Tokenizer:  # noqa: ARG001
    """The tokenizer, with the words that it knows from earlier shards; each hash is another one."""
    return Tokenizer.load(folder)
