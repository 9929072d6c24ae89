"""The text by which an export is proven: what the model was not trained on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.inference.generate import generate
from atlas.inference.sampling import Sampling
from atlas.model.language_model import LanguageModel
from atlas.tokens.index import SplitIndex, TokenIndex
from atlas.tokens.shards import ShardWriter, shard_path
from atlas.tokens.split import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import Batch, EvaluationWindows

MOST_CHARACTERS = 20_000_000  # of documents whose tokens are compared
AT_ONCE = 16  # windows that our model reads
SAMPLES = 4


@dataclass(frozen=True)
class HeldOut:
    """Text, and how much of it is used.

    Attributes:
        texts: whose tokens are compared; the first ones are continued.
        batches: windows of it, over which perplexities are computed.
        prompts: how many texts give logits and a greedy continuation.
        tokens: length of a continuation.
        described: what the text is, for people.
    """

    texts: list[str]
    batches: list[Batch[npt.NDArray[Any]]]
    prompts: int
    tokens: int
    described: str

    @classmethod
    def of(
        cls,
        documents: Iterable[Document],
        split: TokenSplit,
        context_length: int,
        *,
        prompts: int,
        tokens: int,
        windows: int,
        described: str = "text that it was not trained on",
    ) -> "HeldOut":
        """Documents and their tokens; perplexities are over so many windows, 0 for all."""
        found = EvaluationWindows(split, context_length, AT_ONCE)
        batches = list(found.spread(windows or len(found.layout)))
        return cls(_first(documents, MOST_CHARACTERS), batches, prompts, tokens, described)


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer, folder: Path) -> TokenSplit:
    """The tokens of texts that are no corpus, as a val split in an empty folder."""
    path = shard_path(folder, "val", 0)
    writer = ShardWriter(path, tokenizer.vocab_size, tokenizer.sha256)
    size = 0
    for text in texts:
        ids = [*tokenizer.encode(text), tokenizer.eos]
        writer.write(ids, [len(ids)])
        size += len(text.encode())
    writer.close()
    entry = SplitIndex([writer.tokens], writer.documents, size)
    known = (tokenizer.vocab_size, tokenizer.eos, tokenizer.pad, None, tokenizer.sha256)
    TokenIndex(*known, "packed", {"val": entry}).write(folder)
    return TokenSplit(folder, "val")


def own_samples(model: LanguageModel, tokenizer: Tokenizer) -> list[str]:
    """What a model writes itself, for where there is no other text.

    Sampled from its own probabilities, so a divergence over it is the one that can be expected of
    texts that the model writes.

    Raises:
        AtlasError: it ends every text at once.
    """
    texts = []
    for seed in range(SAMPLES):
        plain = Sampling(temperature=1, top_k=0, top_p=1, seed=seed)
        texts.append(
            tokenizer.decode(list(generate(model, [], model.config.context_length, plain)))
        )
    if not any(map(tokenizer.encode, texts)):
        raise AtlasError("--text: the model writes nothing by itself to be checked by: give a text")
    return [text for text in texts if tokenizer.encode(text)]


def _first(documents: Iterable[Document], most_characters: int) -> list[str]:
    """The texts of the first documents, the last one cut to end at so many characters."""
    texts = []
    for document in documents:
        texts.append(document.text[:most_characters])
        most_characters -= len(texts[-1])
        if not most_characters:
            break
    return texts
