"""Encode clean documents into token shards, and write their index.

Each clean shard becomes one token shard, independently of all others, so the work runs in parallel
and the bytes don't depend on who does it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atlas.cleaning.documents import SPLITS, Split, read_shard, shard_paths
from atlas.errors import AtlasError
from atlas.pipeline.files import sha256
from atlas.pipeline.parallel import in_order
from atlas.tokens.shards import ShardWriter, SplitIndex, TokenIndex, shard_path
from atlas.tokens.tokenizer import MODEL_FILE, Tokenizer

if TYPE_CHECKING:
    from atlas.params.schema import TokenizeParams  # workers import this file, and start sooner

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EncodeTask:
    """One clean shard to encode.

    Attributes:
        source: the clean shard.
        target: the token shard.
        tokenizer: folder of the tokenizer.
        tokenizer_sha256: hash of its model file.
        with_eos: True to end each document with ``eos``.
        separator: id that each document must contain, if any.
    """

    source: Path
    target: Path
    tokenizer: Path
    tokenizer_sha256: str
    with_eos: bool
    separator: int | None


@dataclass(frozen=True)
class EncodeResult:
    """Sizes of a token shard.

    Attributes:
        bytes: size of the documents in UTF-8.
        counts: how often each id occurs, (V,).
        without_separator: number of documents without the separator.
    """

    tokens: int
    documents: int
    bytes: int
    counts: Counts
    without_separator: int


def encode_corpus(
    clean: Path, tokenizer: Path, folder: Path, params: "TokenizeParams"
) -> tuple[TokenIndex, dict[Split, Counts]]:
    """Write the token shards of every split and index.json to ``folder``.

    Args:
        clean: folder with one folder of documents per split.
        tokenizer: folder of the tokenizer.
        folder: output folder.
        params: how to join documents.

    Returns:
        The index, and how often each id occurs in each split, (V,).

    Raises:
        AtlasError: the prompt separator isn't a single token, or a document has none.
    """
    loaded = _load_tokenizer(tokenizer.resolve(), sha256(tokenizer / MODEL_FILE))
    separator = _separator_id(loaded, params.prompt_separator)
    folder.mkdir(parents=True)
    tasks: list[tuple[Split, EncodeTask]] = [
        (
            split,
            EncodeTask(
                source.resolve(),
                shard_path(folder, split, number).resolve(),
                tokenizer.resolve(),
                loaded.sha256,
                params.separate_documents,
                separator,
            ),
        )
        for split in SPLITS
        for number, source in enumerate(shard_paths(clean / split))
    ]
    results = in_order(encode_shard, [task for _, task in tasks], "tokenize")
    splits = {split: SplitIndex([], 0, 0) for split in SPLITS}
    counts = {split: np.zeros(loaded.vocab_size, np.int64) for split in SPLITS}
    for (split, _), result in zip(tasks, results, strict=True):
        splits[split] = splits[split].with_shard(result.tokens, result.documents, result.bytes)
        counts[split] += result.counts
        if result.without_separator:
            raise AtlasError(
                f"tokenize.prompt_separator: {result.without_separator} of {result.documents} "
                f"documents of {clean / split} don't contain {params.prompt_separator!r} as a "
                "token of its own; a blank before it may be part of the token "
                f"({' ' + str(params.prompt_separator)!r})"
            )
    index = TokenIndex(
        loaded.vocab_size,
        loaded.eos,
        loaded.pad,
        separator,
        loaded.sha256,
        params.windows,
        splits,
    )
    index.write(folder)
    return index, counts


def encode_shard(task: EncodeTask) -> EncodeResult:
    """Encode one clean shard; runs in a worker."""
    tokenizer = _load_tokenizer(task.tokenizer, task.tokenizer_sha256)
    writer = ShardWriter(task.target, tokenizer.vocab_size, tokenizer.sha256)
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    size = without_separator = 0
    pending = 0  # separators of a document that continues in the next block

    def texts() -> Iterator[str]:
        nonlocal size
        for document in read_shard(task.source):
            size += len(document.text.encode())
            yield document.text

    for block in tokenizer.blocks(texts(), with_eos=task.with_eos):
        writer.write(block.ids, block.ends)
        counts += np.bincount(block.ids, minlength=tokenizer.vocab_size)
        if task.separator is not None:
            seen = np.concatenate(([pending], block.ids == task.separator)).cumsum()
            seen_at_ends = seen[block.ends]
            without_separator += int((np.diff(seen_at_ends, prepend=0) == 0).sum())
            pending = int(seen[-1] - (seen_at_ends[-1] if len(seen_at_ends) else 0))
    writer.close()
    return EncodeResult(writer.tokens, writer.documents, size, counts, without_separator)


@lru_cache(maxsize=1)
def _load_tokenizer(folder: Path, tokenizer_sha256: str) -> Tokenizer:  # noqa: ARG001
    """Load the tokenizer once per process, and again if another one is in the same folder."""
    return Tokenizer.load(folder)


def _separator_id(tokenizer: Tokenizer, piece: str | None) -> int | None:
    """Return the id of the piece that ends a prompt, if any."""
    if not piece:
        return None
    ids = tokenizer.encode(piece)
    if len(ids) != 1 or tokenizer.decode(ids) != piece:
        raise AtlasError(
            f"tokenize.prompt_separator is {piece!r}, but this tokenizer has no such piece; "
            "`atlas tokenize TEXT` lists the pieces of a prompt"
        )
    return ids[0]
