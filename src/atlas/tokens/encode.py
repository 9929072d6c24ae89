"""Clean documents to token shards and their index.

Each clean shard becomes a token shard, apart from all others, so that many can work at it and
the bytes do not depend on who does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from atlas.cleaning.documents import read_shard, shards_of
from atlas.cleaning.splits import SPLITS, Split
from atlas.files import sha256
from atlas.parallel import in_order
from atlas.params import TokenizeParams
from atlas.tokens.index import SplitIndex, TokenIndex
from atlas.tokens.shards import ShardWriter, shard_path
from atlas.tokens.tokenizer import MODEL_FILE, Tokenizer

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
    """

    source: Path
    target: Path
    tokenizer: Path
    tokenizer_sha256: str
    with_eos: bool


@dataclass(frozen=True)
class EncodeResult:
    """What a token shard holds.

    Attributes:
        tokens: ids.
        documents: that they encode.
        bytes: size of those documents in UTF-8.
        counts: how often each id occurs, (V,).
    """

    tokens: int
    documents: int
    bytes: int
    counts: Counts


def encode_corpus(
    clean: Path, tokenizer: Path, folder: Path, tokenize: TokenizeParams
) -> tuple[TokenIndex, dict[Split, Counts]]:
    """Writes the shards of every split and index.json below ``folder``.

    Args:
        clean: with a folder of documents for each split.
        tokenizer: folder of the tokenizer.
        folder: to write to.
        tokenize: how documents are joined.

    Returns:
        The index, and how often each id occurs in each split, (V,).
    """
    folder.mkdir(parents=True)
    loaded = _load(tokenizer.resolve(), sha256(tokenizer / MODEL_FILE))
    tasks: list[tuple[Split, EncodeTask]] = [
        (
            split,
            EncodeTask(
                source.resolve(),
                shard_path(folder, split, number).resolve(),
                tokenizer.resolve(),
                loaded.sha256,
                tokenize.separate_documents,
            ),
        )
        for split in SPLITS
        for number, source in enumerate(shards_of(clean / split))
    ]
    found = in_order(encode_shard, [task for _, task in tasks], "tokenize")
    splits = {split: SplitIndex([], 0, 0) for split in SPLITS}
    counts = {split: np.zeros(loaded.vocab_size, np.int64) for split in SPLITS}
    for (split, _), result in zip(tasks, found, strict=True):
        splits[split] = splits[split].with_shard(result.tokens, result.documents, result.bytes)
        counts[split] += result.counts
    index = TokenIndex(
        loaded.vocab_size,
        loaded.eos,
        loaded.pad,
        loaded.sha256,
        tokenize.windows,
        splits,
    )
    index.write(folder)
    return index, counts


def encode_shard(task: EncodeTask) -> EncodeResult:
    """Encodes a clean shard."""
    tokenizer = _load(task.tokenizer, task.tokenizer_sha256)
    writer = ShardWriter(task.target, tokenizer.vocab_size, tokenizer.sha256)
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    size = 0

    def texts() -> Iterator[str]:
        nonlocal size
        for document in read_shard(task.source):
            size += len(document.text.encode())
            yield document.text

    for block in tokenizer.blocks(texts(), with_eos=task.with_eos):
        writer.write(block.ids, block.ends)
        counts += np.bincount(block.ids, minlength=tokenizer.vocab_size)
    writer.close()
    return EncodeResult(writer.tokens, writer.documents, size, counts)


@lru_cache(maxsize=1)
def _load(folder: Path, tokenizer_sha256: str) -> Tokenizer:  # noqa: ARG001 - another one has another hash
    """The tokenizer, with the words that it knows from the shards before."""
    return Tokenizer.load(folder)
