"""Clean documents to token shards and their index.

Each clean shard becomes a token shard, apart from all others, so that many can work at it and
the bytes do not depend on who does.
"""

from pathlib import Path

import numpy as np

from atlas.cleaning.documents import SPLITS, Split, shard_paths
from atlas.errors import AtlasError
from atlas.params.schema import TokenizeParams
from atlas.pipeline.files import sha256
from atlas.pipeline.parallel import in_order
from atlas.tokens.encode_shard import Counts, EncodeTask, encode_shard, load_once
from atlas.tokens.index import SplitIndex, TokenIndex
from atlas.tokens.shards import shard_path
from atlas.tokens.tokenizer import MODEL_FILE, Tokenizer


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

    Raises:
        AtlasError: the end of a question is no single token, or a document has none.
    """
    loaded = load_once(tokenizer.resolve(), sha256(tokenizer / MODEL_FILE))
    separator = _separator(loaded, tokenize.prompt_separator)
    folder.mkdir(parents=True)
    tasks: list[tuple[Split, EncodeTask]] = [
        (
            split,
            EncodeTask(
                source.resolve(),
                shard_path(folder, split, number).resolve(),
                tokenizer.resolve(),
                loaded.sha256,
                tokenize.separate_documents,
                separator,
            ),
        )
        for split in SPLITS
        for number, source in enumerate(shard_paths(clean / split))
    ]
    found = in_order(encode_shard, [task for _, task in tasks], "tokenize")
    splits = {split: SplitIndex([], 0, 0) for split in SPLITS}
    counts = {split: np.zeros(loaded.vocab_size, np.int64) for split in SPLITS}
    for (split, _), result in zip(tasks, found, strict=True):
        splits[split] = splits[split].with_shard(result.tokens, result.documents, result.bytes)
        counts[split] += result.counts
        if result.undivided:
            raise AtlasError(
                f"tokenize.prompt_separator: {result.undivided} of {result.documents} documents of "
                f"{clean / split} do not hold {tokenize.prompt_separator!r} as a token of its own; "
                f"a blank before it may belong to it ({' ' + tokenize.prompt_separator!r})"
            )
    index = TokenIndex(
        loaded.vocab_size,
        loaded.eos,
        loaded.pad,
        separator,
        loaded.sha256,
        tokenize.windows,
        splits,
    )
    index.write(folder)
    return index, counts


def _separator(tokenizer: Tokenizer, piece: str | None) -> int | None:
    """The id of the piece that ends a question; None for none."""
    if not piece:
        return None
    ids = tokenizer.encode(piece)
    if len(ids) != 1 or tokenizer.decode(ids) != piece:
        raise AtlasError(
            f"tokenize.prompt_separator is {piece!r}: this tokenizer has no such piece; "
            f"`atlas tokenize TEXT` shows those of a question"
        )
    return ids[0]
