"""Encode clean documents into token shards, and write their index.

Each clean shard becomes one token shard, independently of all others, so the work runs in parallel
and the bytes don't depend on which worker does it.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atlas.cleaning.documents import SPLITS, Document, Split, read_shard, shard_paths
from atlas.errors import AtlasError
from atlas.pipeline.parallel import in_order
from atlas.tokens.conversations import ConversationEncoder, warn_of_learning_all
from atlas.tokens.shards import Bits, CorpusSize, ShardWriter, SplitIndex, TokenIndex, shard_path
from atlas.tokens.tokenizer import Ids, Tokenizer

if TYPE_CHECKING:
    from atlas.params.schema import TokenizeParams  # not at run time: workers start sooner

Counts = npt.NDArray[np.int64]


def encode_corpus(
    clean: Path, tokenizer: Path, folder: Path, params: "TokenizeParams"
) -> tuple[TokenIndex, dict[Split, Counts]]:
    """Write the token shards of every split and index.json to ``folder``.

    Returns the index, and how often each id occurs in each split, (V,).
    """
    loaded = Tokenizer.load(tokenizer)
    separator = _separator_id(loaded, params.prompt_separator)
    folder.mkdir(parents=True)
    shards: list[tuple[Split, Path, Path]] = [
        (split, source.resolve(), shard_path(folder, split, number).resolve())
        for split in SPLITS
        for number, source in enumerate(shard_paths(clean / split))
    ]
    encode = partial(
        encode_shard,
        tokenizer_folder=tokenizer.resolve(),
        tokenizer_sha256=loaded.sha256,
        template=loaded.chat_template,
        with_eos=params.separate_documents,
        separator=separator,
    )
    results = in_order(encode, [paths for _, *paths in shards], "tokenize")
    splits = {split: SplitIndex([], 0, 0) for split in SPLITS}
    counts = {split: np.zeros(loaded.vocab_size, np.int64) for split in SPLITS}
    for (split, *_), (size, occurrences, without_separator) in zip(shards, results, strict=True):
        splits[split] += size
        counts[split] += occurrences
        if without_separator:
            raise AtlasError(
                f"tokenize.prompt_separator: {without_separator} of {size.documents} documents of "
                f"{clean / split} lack the token {params.prompt_separator!r}; a blank before it "
                f"may be part of the token ({' ' + str(params.prompt_separator)!r})"
            )
    if any(each.conversations for each in splits.values()) and loaded.chat_template is not None:
        warn_of_learning_all(loaded.chat_template)
    special = (loaded.eos, loaded.pad, separator)
    known = (loaded.vocab_size, *special, loaded.sha256, params.windows)
    index = TokenIndex(*known, splits, loaded.window_start, params.document_mask)
    index.write(folder)
    return index, counts


def encode_shard(
    paths: Sequence[Path],
    tokenizer_folder: Path,
    tokenizer_sha256: str,
    template: str | None,
    with_eos: bool,
    separator: int | None,
) -> tuple[SplitIndex, Counts, int]:
    """Encode a clean shard (the first path) into a token shard (the second); runs in a worker.

    Returns its sizes, how often each id occurs, (V,), and how many documents lack the separator.
    """
    source, target = paths
    tokenizer = _load_tokenizer(tokenizer_folder, tokenizer_sha256)
    writer = ShardWriter(target, tokenizer.vocab_size, tokenizer.sha256)
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    size = conversations = without_separator = 0
    documents: list[tuple[str, int]] = []  # corpus and bytes of each document
    document_ends: list[Counts] = []
    pending = 0  # separators of a document that continues in the next block

    def counted() -> Iterator[Document]:
        nonlocal size, conversations
        for document in read_shard(source):
            length = len(document.text.encode())
            size += length
            conversations += document.messages is not None and template is not None
            if document.corpus:
                documents.append((document.corpus, length))
            yield document

    for ids, ends, given in _blocks(counted(), tokenizer, template, with_eos=with_eos):
        if documents:
            document_ends.append(np.asarray(ends, np.int64) + writer.tokens)
        counts += np.bincount(ids, minlength=tokenizer.vocab_size)
        if separator is not None:
            seen = np.concatenate(([pending], ids == separator)).cumsum()
            seen_before = np.concatenate(([0], seen[ends]))  # each document
            without_separator += int((np.diff(seen_before) == 0).sum())
            pending = int(seen[-1] - seen_before[-1])
            numbers = np.searchsorted(ends, np.arange(len(ids)), side="right")
            given = seen[:-1] == seen_before[numbers]
        writer.write(ids, ends, given)
    writer.close()
    index = SplitIndex([writer.tokens], writer.documents, size, conversations=conversations)
    return index + _corpora(documents, document_ends), counts, without_separator


def _blocks(
    documents: Iterable[Document], tokenizer: Tokenizer, template: str | None, *, with_eos: bool
) -> Iterator[tuple[Ids, Counts | list[int], Bits | None]]:
    """Yield ids, where documents end in them, and which are given if there is a chat template."""
    if template is None:
        texts = (document.text for document in documents)
        for ids, ends in tokenizer.blocks(texts, with_eos=with_eos):
            yield ids, ends, None
        return
    encoder = ConversationEncoder(tokenizer, template)
    for ids, given in encoder.encode(documents):
        if with_eos:
            learns_end = not given.any()  # of plain text
            ids, given = np.append(ids, np.int32(tokenizer.eos)), np.append(given, not learns_end)
        yield ids, [len(ids)], given


def _corpora(documents: list[tuple[str, int]], ends: list[Counts]) -> SplitIndex:
    """Sum documents by corpus of the mix, from the corpus, bytes and end of each."""
    tokens = np.diff(np.concatenate([np.zeros(1, np.int64), *ends])).tolist()
    sizes = SplitIndex([], 0, 0)
    for corpus, group in groupby(zip(documents, tokens, strict=True), lambda each: each[0][0]):
        counts, lengths = zip(*((count, length) for (_, length), count in group), strict=True)
        size = CorpusSize(sum(counts), len(counts), sum(lengths))
        sizes += SplitIndex([], 0, 0, {corpus: size})
    return sizes


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
