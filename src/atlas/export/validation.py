"""Text for the checks: the val split, a text file, or samples from the model."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.inference.generate import generate
from atlas.inference.sampling import Sampling
from atlas.model.transformer import Decoder
from atlas.tokens.shards import ShardWriter, SplitIndex, TokenIndex, TokenSplit, shard_path
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import EvaluationWindows, TokenBatch

MAX_CHARACTERS = 20_000_000  # of the texts whose tokens are compared
BATCH_SIZE = 16  # windows per forward pass
SAMPLES = 4


@dataclass(frozen=True)
class ValidationData:
    """Text and windows of its tokens."""

    texts: list[str]  # to tokenize; the first ones also give logits and greedy continuations
    batches: list[TokenBatch[npt.NDArray[Any]]]  # windows of tokens, for perplexities
    prompts: int  # number of texts whose logits and greedy continuations are compared
    greedy_tokens: int  # length of a continuation
    description: str  # of the tokens in the windows, for the model card

    @classmethod
    def load(
        cls,
        documents: Iterable[Document],
        split: TokenSplit,
        context_length: int,
        *,
        prompts: int,
        greedy_tokens: int,
        max_windows: int | None,
        description: str = "text the model was not trained on",
    ) -> "ValidationData":
        """Load documents and up to ``max_windows`` windows spread over their tokens."""
        windows = EvaluationWindows(split, context_length, BATCH_SIZE)
        batches = list(windows.spread(max_windows or len(windows)))
        tokens = sum(batch.num_targets() for batch in batches)
        texts, characters = [], MAX_CHARACTERS
        for document in documents:
            texts.append(document.text[:characters])
            characters -= len(texts[-1])
            if not characters:
                break
        description = f"{tokens:,} tokens of {description}"
        return cls(texts, batches, prompts, greedy_tokens, description)


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer, folder: Path) -> TokenSplit:
    """Tokenize texts into an empty folder, as the val split of a corpus."""
    texts = list(texts)
    writer = ShardWriter(shard_path(folder, "val", 0), tokenizer.vocab_size, tokenizer.sha256)
    for text in texts:
        ids = [*tokenizer.encode(text), tokenizer.eos]
        writer.write(ids, [len(ids)])
    writer.close()
    size = SplitIndex([writer.tokens], writer.documents, sum(len(each.encode()) for each in texts))
    known = (tokenizer.vocab_size, tokenizer.eos, tokenizer.pad, None, tokenizer.sha256)
    TokenIndex(*known, "packed", {"val": size}).write(folder)
    return TokenSplit(folder, "val")


def sample_texts(model: Decoder, tokenizer: Tokenizer) -> list[str]:
    """Generate texts with the model, to check it without other text.

    The texts are sampled from the model's own probabilities (temperature 1), so a KL divergence
    over them is the one to expect on what the model writes.
    """
    length = model.config.context_length
    samplings = [Sampling(temperature=1, top_k=0, top_p=1, seed=seed) for seed in range(SAMPLES)]
    samples = (tokenizer.decode(generate(model, [], length, each)) for each in samplings)
    texts = [text for text in samples if tokenizer.encode(text)]
    if not texts:
        raise AtlasError("--text: all samples of the model are empty; pass a text to check it with")
    return texts
