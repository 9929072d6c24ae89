"""Samples: what the model writes after given prompts, and what it writes of itself.

Whether texts repeat themselves, and each other.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise

import numpy as np
import pandas as pd

from atlas.evaluation.memorisation import copied
from atlas.inference.generate import generate_batch
from atlas.inference.sampling import Sampling
from atlas.model.language_model import LanguageModel
from atlas.params.schema import EvaluateParams
from atlas.tokens.shards import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import document_prompts

Gram = tuple[int, ...]


def grams(ids: Sequence[int], size: int) -> list[Gram]:
    """The runs of ``size`` tokens of a text, in order."""
    return list(zip(*(ids[start:] for start in range(size)), strict=False))


def distinct(texts: Iterable[Sequence[int]], size: int) -> float:
    """Distinct-n: different runs of ``size`` tokens over all of them (arXiv:1510.03055).

    1 if no run is there twice; 1 as well where texts are too short to have any.
    """
    found = list(chain.from_iterable(grams(ids, size) for ids in texts))
    return len(set(found)) / len(found) if found else 1.0


def repetition(texts: Iterable[Sequence[int]], size: int = 4) -> float:
    """seq-rep-n: the share of runs that stood before in the same text (arXiv:1908.04319)."""
    shares = [1 - distinct([ids], size) for ids in texts if len(ids) >= size]
    return sum(shares) / len(shares) if shares else 0.0


DOCUMENTS = 6  # of val, whose beginnings are continued where no prompts are given
SHOWN = 3  # texts written from nothing that stand on the page
AT_ONCE = 64  # texts that grow together
Texts = list[list[int]]


def prompts_of(given: Sequence[str], tokenizer: Tokenizer, val: TokenSplit) -> Texts:
    """The ids of given prompts; without any, of the beginnings of documents or their questions."""
    return [tokenizer.encode(prompt) for prompt in given] or document_prompts(val, DOCUMENTS)


def continuations(
    model: LanguageModel, prompts: Sequence[list[int]], evaluate: EvaluateParams
) -> Texts:
    """What the model adds to each prompt, with the seeds from ``evaluate.seed`` on."""
    samplings = [
        Sampling(
            temperature=evaluate.temperature,
            top_k=evaluate.top_k or 0,
            top_p=evaluate.top_p,
            seed=seed,
        )
        for seed in range(evaluate.seed, evaluate.seed + len(prompts))
    ]
    return in_parts(model, prompts, evaluate.sample_tokens, samplings)


def in_parts(
    model: LanguageModel,
    prompts: Sequence[list[int]],
    most_tokens: int,
    samplings: Sequence[Sampling],
) -> Texts:
    """What the model adds to each prompt, some of them at a time, as each takes memory."""
    found: Texts = []
    for first in range(0, len(prompts), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        found += generate_batch(model, prompts[some], most_tokens, samplings[some])
    return found


def page_of(
    prompted: Sequence[Sequence[int]],
    free: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    evaluate: EvaluateParams,
) -> str:
    """Samples as a page of Markdown: prompts with what continues them, and the first free ones."""
    page = [
        f"Samples at temperature {evaluate.temperature:g}, top-k {evaluate.top_k or 'all'}, "
        f"top-p {evaluate.top_p:g}, seeds from {evaluate.seed} on."
    ]
    page += [_indented(tokenizer.decode(ids)) for ids in prompted]
    if free:
        page.append("Written from nothing:")
        page += [_indented(tokenizer.decode(ids)) for ids in free[:SHOWN]]
    return "\n\n".join(page) + "\n"


def free_sample_table(
    texts: Sequence[Sequence[int]], matches: Sequence[int], tokenizer: Tokenizer
) -> pd.DataFrame:
    """A row of each text: tokens, the longest run that the training text has, repetition, text."""
    rows = [
        (len(ids), match, repetition([ids]), tokenizer.decode(ids))
        for ids, match in zip(texts, matches, strict=True)
    ]
    return pd.DataFrame(rows, columns=["tokens", "match", "repetition", "text"])


def text_measures(
    name: str, texts: Sequence[Sequence[int]], matches: Sequence[int]
) -> dict[str, float | int]:
    """How texts repeat themselves and the training text.

    Args:
        name: before each measure.
        texts: samples, or real text to compare with.
        matches: the longest run of each that the training text has.
    """
    if not texts:
        return {}
    found: dict[str, float | int] = {
        f"{name}_distinct_{size}": distinct(texts, size) for size in (1, 2, 3)
    }
    return found | {
        f"{name}_repetition": repetition(texts),
        f"{name}_longest_match": max(matches),
        f"{name}_mean_match": float(np.mean(matches)),
        f"{name}_copied": copied(texts, matches),
    }


def excerpts(split: TokenSplit, lengths: Sequence[int]) -> Texts:
    """Pieces of documents of such lengths, evenly spread over a split, no two of which overlap.

    Documents are cut into pieces of the largest length; each is cut to one of ``lengths``, or ends
    where its document does. A short split has fewer.
    """
    longest = max(lengths, default=0)
    if not longest:
        return []
    ends = split.document_ends.tolist()
    places = [
        (start, end) for first, end in pairwise([0, *ends]) for start in range(first, end, longest)
    ]
    chosen = np.linspace(0, len(places) - 1, min(len(lengths), len(places))).round().astype(int)
    return [
        split.read(start, min(start + length, end)).tolist()
        for (start, end), length in zip((places[each] for each in chosen), lengths, strict=False)
    ]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
