"""Samples: what the model writes after given prompts, and what it writes of itself."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from atlas.evaluation.memorisation import copied, longest_matches
from atlas.evaluation.repetition import distinct, repetition
from atlas.generation.generate import generate_batch
from atlas.generation.prompts import beginnings
from atlas.generation.sampling import Sampling
from atlas.model.language_model import LanguageModel
from atlas.params import EvaluateParams
from atlas.tokens.split import TokenSplit
from atlas.tokens.tokenizer import Tokenizer

DOCUMENTS = 6  # of val, whose beginnings are continued where no prompts are given
SHOWN = 3  # texts written from nothing that stand on the page
AT_ONCE = 64  # texts that grow together
Texts = list[list[int]]


def prompts_of(given: Sequence[str], tokenizer: Tokenizer, val: TokenSplit) -> Texts:
    """The ids of given prompts; without any, of the beginnings of documents or their questions."""
    return [tokenizer.encode(prompt) for prompt in given] or beginnings(val, DOCUMENTS)


def continuations(
    model: LanguageModel, prompts: Sequence[list[int]], evaluate: EvaluateParams
) -> Texts:
    """What the model adds to each prompt, with the seeds from ``evaluate.seed`` on."""
    found: Texts = []
    for first in range(0, len(prompts), AT_ONCE):
        some = prompts[first : first + AT_ONCE]
        samplings = [
            Sampling(
                temperature=evaluate.temperature,
                top_k=evaluate.top_k,
                top_p=evaluate.top_p,
                seed=seed,
            )
            for seed in range(evaluate.seed + first, evaluate.seed + first + len(some))
        ]
        found += generate_batch(model, some, evaluate.sample_tokens, samplings)
    return found


def page_of(
    prompted: Sequence[Sequence[int]],
    free: Sequence[Sequence[int]],
    tokenizer: Tokenizer,
    evaluate: EvaluateParams,
) -> str:
    """Samples as a page of Markdown: prompts with what continues them, and the first free ones."""
    page = [
        f"Samples at temperature {evaluate.temperature:g}, top-k {evaluate.top_k}, "
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


def free_sample_measures(
    texts: Sequence[Sequence[int]],
    matches: Sequence[int],
    real: Sequence[Sequence[int]],
    training: TokenSplit,
) -> dict[str, float | int]:
    """How samples repeat themselves and the training text, and as a yardstick real text.

    Args:
        texts: samples.
        matches: the longest run of each that the training text has.
        real: texts of val that are as long.
        training: the text that was learned.
    """
    found: dict[str, float | int] = {}
    for name, some, longest in (
        ("samples", texts, matches),
        ("real_text", real, longest_matches(real, training)),
    ):
        found |= {f"{name}_distinct_{size}": distinct(some, size) for size in (1, 2, 3)}
        found[f"{name}_repetition"] = repetition(some)
        found[f"{name}_longest_match"] = max(longest, default=0)
        found[f"{name}_mean_match"] = float(np.mean(longest))
        found[f"{name}_copied"] = copied(some, longest)
    return found


def excerpts(split: TokenSplit, count: int, length: int) -> Texts:
    """So many pieces of a split, evenly spread, at most ``length`` tokens each."""
    starts = np.linspace(0, max(0, len(split) - length), count).astype(int).tolist()
    return [split.read(start, min(start + length, len(split))).tolist() for start in starts]


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))
