"""Samples of the model, and how much they repeat themselves and copy the training text."""

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.memorization import copied_share, longest_matches
from atlas.evaluation.scores import Metrics
from atlas.evaluation.tables import write_table
from atlas.inference.generate import generate_batch
from atlas.inference.sampling import Sampling
from atlas.model.language_model import LanguageModel
from atlas.params.schema import EvaluateParams
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import document_prompts

VAL_PROMPTS = 6  # beginnings of val documents, if params.yaml gives no prompts
FREE_SAMPLES_SHOWN = 3
BATCH_SIZE = 64
Texts = list[list[int]]


def write_samples(evaluator: Evaluator, page: Path, folder: Path) -> Metrics:
    """Write the page of samples and, unless documents are questions, measure free samples.

    A free sample has no prompt. Excerpts of val of the same lengths are measured for comparison.
    The page is Markdown; ``folder`` receives samples.csv.
    """
    params, val = evaluator.params, evaluator.splits["val"]
    prompts = choose_prompts(params.prompts, evaluator.tokenizer, val)
    continuations = sample_continuations(evaluator.model, prompts, params)
    count = 0 if evaluator.has_questions else params.free_samples
    free = sample_continuations(evaluator.model, [[]] * count, params)
    prompted = [[*prompt, *ids] for prompt, ids in zip(prompts, continuations, strict=True)]
    page.write_text(format_page(prompted, free, evaluator.tokenizer, params), encoding="utf-8")
    if not free:
        return {}
    real = excerpts(val, [len(ids) for ids in free])
    matches = longest_matches([*free, *real], evaluator.splits["train"])
    free_matches, real_matches = matches[: len(free)], matches[len(free) :]
    write_table(free_sample_table(free, free_matches, evaluator.tokenizer), folder, "samples")
    return text_metrics("samples", free, free_matches) | text_metrics(
        "real_text", real, real_matches
    )


def choose_prompts(prompts: Sequence[str], tokenizer: Tokenizer, val: TokenSplit) -> Texts:
    """Encode the prompts; without any, use beginnings of val documents, or their questions."""
    return [tokenizer.encode(prompt) for prompt in prompts] or document_prompts(val, VAL_PROMPTS)


def sample_continuations(
    model: LanguageModel, prompts: Sequence[list[int]], params: EvaluateParams
) -> Texts:
    """Sample one continuation per prompt; the n-th uses the seed ``params.seed + n``."""
    sampling = Sampling(temperature=params.temperature, top_k=params.top_k or 0, top_p=params.top_p)
    seeds = range(params.seed, params.seed + len(prompts))
    samplings = [sampling.model_copy(update={"seed": seed}) for seed in seeds]
    return generate_in_batches(model, prompts, params.sample_tokens, samplings)


def generate_in_batches(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    max_tokens: int,
    samplings: Sequence[Sampling],
) -> Texts:
    """Continue any number of prompts, a batch at a time to bound memory."""
    continuations: Texts = []
    for first in range(0, len(prompts), BATCH_SIZE):
        batch = slice(first, first + BATCH_SIZE)
        continuations += generate_batch(model, prompts[batch], max_tokens, samplings[batch])
    return continuations


def format_page(
    prompted: Sequence[Sequence[int]],
    free: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    params: EvaluateParams,
) -> str:
    """Format all prompted texts and the first free samples as Markdown."""
    page = [
        f"Samples at temperature {params.temperature:g}, top-k {params.top_k or 'all'}, "
        f"top-p {params.top_p:g}, seeds from {params.seed} on."
    ]
    page += [_indent(tokenizer.decode(ids)) for ids in prompted]
    if free:
        page.append("Without a prompt:")
        page += [_indent(tokenizer.decode(ids)) for ids in free[:FREE_SAMPLES_SHOWN]]
    return "\n\n".join(page) + "\n"


def free_sample_table(
    texts: Sequence[Sequence[int]], matches: Sequence[int], tokenizer: Tokenizer
) -> pd.DataFrame:
    """Table of the texts: tokens, longest match in the training text, repetition, text."""
    rows = [
        (len(ids), match, repetition([ids]), tokenizer.decode(ids))
        for ids, match in zip(texts, matches, strict=True)
    ]
    return pd.DataFrame(rows, columns=["tokens", "match", "repetition", "text"])


def text_metrics(name: str, texts: Sequence[Sequence[int]], matches: Sequence[int]) -> Metrics:
    """Measure how much texts repeat themselves and the training text; ``name`` is a prefix.

    ``matches`` are the longest matches of the texts in the training text, in tokens.
    """
    if not texts:
        return {}
    metrics: Metrics = {f"{name}_distinct_{size}": distinct(texts, size) for size in (1, 2, 3)}
    return metrics | {
        f"{name}_repetition": repetition(texts),
        f"{name}_longest_match": max(matches),
        f"{name}_mean_match": float(np.mean(matches)),
        f"{name}_copied": copied_share(texts, matches),
    }


def distinct(texts: Iterable[Sequence[int]], size: int) -> float:
    """Distinct-n (arXiv:1510.03055): different n-grams over all n-grams; 1 if there are none."""
    ngrams = list(chain.from_iterable(_ngrams(ids, size) for ids in texts))
    return len(set(ngrams)) / len(ngrams) if ngrams else 1.0


def repetition(texts: Iterable[Sequence[int]], size: int = 4) -> float:
    """seq-rep-n (arXiv:1908.04319): mean share of n-grams that occurred before in their text."""
    shares = [1 - distinct([ids], size) for ids in texts if len(ids) >= size]
    return sum(shares) / len(shares) if shares else 0.0


def _ngrams(ids: Sequence[int], size: int) -> list[tuple[int, ...]]:
    return list(zip(*(ids[start:] for start in range(size)), strict=False))


def excerpts(split: TokenSplit, lengths: Sequence[int]) -> Texts:
    """Cut non-overlapping excerpts of the given lengths, evenly spread over a split.

    Documents are cut into pieces of the largest length, and each chosen piece to its own length. A
    piece at the end of a document may be shorter, and a short split has fewer pieces.
    """
    longest = max(lengths, default=0)
    if not longest:
        return []
    ends = split.document_ends.tolist()
    pieces = [
        (start, end) for first, end in pairwise([0, *ends]) for start in range(first, end, longest)
    ]
    chosen = np.linspace(0, len(pieces) - 1, min(len(lengths), len(pieces))).round().astype(int)
    return [
        split.read(start, min(start + length, end)).tolist()
        for (start, end), length in zip((pieces[each] for each in chosen), lengths, strict=False)
    ]


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
