"""Clean documents to token shards and their index."""

from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from atlas.cleaning.documents import read_documents
from atlas.cleaning.splits import SPLITS, Split
from atlas.params import TokenizeParams
from atlas.tokens.index import SplitIndex, TokenIndex
from atlas.tokens.shards import ShardWriter
from atlas.tokens.tokenizer import Tokenizer

PIECE = 1 << 18  # characters encoded at once; their ids take some 40 times that in memory


def encode_corpus(
    clean: Path, tokenizer: Tokenizer, folder: Path, tokenize: TokenizeParams
) -> dict[str, int | float]:
    """Writes the shards of every split and index.json below ``folder``.

    Returns:
        The metrics of the stage: tokens and bytes of each split.
    """
    folder.mkdir(parents=True)
    splits: dict[Split, SplitIndex] = {}
    for split in SPLITS:
        writer = ShardWriter(
            folder, split, tokenizer.vocab_size, tokenizer.sha256, tokenize.shard_tokens
        )
        documents = size = 0
        for document in tqdm(read_documents(clean / split), desc=f"tokenize {split}", unit="doc"):
            for piece in _pieces(document.text):
                writer.write(tokenizer.encode(piece))
            if tokenize.separate_documents:
                writer.write([tokenizer.end_of_text])
            documents += 1
            size += len(document.text.encode())
        writer.close()
        splits[split] = SplitIndex(writer.counts, documents, size)
    TokenIndex(tokenizer.vocab_size, tokenizer.end_of_text, tokenizer.sha256, splits).write(folder)
    metrics: dict[str, int | float] = {}
    for split, index in splits.items():
        metrics |= {f"{split}_tokens": index.tokens, f"{split}_bytes": index.bytes}
    return metrics


def _pieces(text: str) -> Iterator[str]:
    """A text in parts that encode to the ids of the whole: a line end is a token of its own."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + PIECE) + 1 or len(text)
        yield text[start:end]
        start = end
