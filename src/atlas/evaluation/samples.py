"""Sample from the model, and measure repetition and copying of the training text.

Copies are found by a suffix automaton of the samples (Blumer et al. 1985, Theoretical Computer
Science 40), which reads the training text once. Time grows with the length of that text, memory
does not.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from atlas.evaluation.evaluator import Evaluator
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
CHUNK_TOKENS = 1 << 20
ROOT = 0
# A text is a copy if its longest run that occurs in the training text has this share of its tokens,
COPIED_SHARE, MIN_COPIED_TOKENS = 0.5, 8  # and at least this many
Texts = list[list[int]]


def write_samples(
    evaluator: Evaluator, page: Path, folder: Path, base: Evaluator | None = None
) -> Metrics:
    """Write the page of samples and, unless documents are questions, measure free samples.

    A free sample has no prompt. Excerpts of val of the same lengths are measured for comparison.
    The page is Markdown, with samples of ``base``, the model before fine-tuning, if there is one;
    ``folder`` receives samples.csv.
    """
    params, val = evaluator.params, evaluator.splits["val"]
    prompts = choose_prompts(params.prompts, evaluator.tokenizer, val)
    prompted, before = (
        sample_texts(each.model, prompts, params) if each else [] for each in (evaluator, base)
    )
    count = 0 if evaluator.has_questions else params.free_samples
    free = sample_continuations(evaluator.model, [[]] * count, params)
    content = format_page(prompted, free, evaluator.tokenizer, params, before)
    page.write_text(content, encoding="utf-8")
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


def sample_texts(
    model: LanguageModel, prompts: Sequence[list[int]], params: EvaluateParams
) -> Texts:
    """Return each prompt with its continuation."""
    continuations = sample_continuations(model, prompts, params)
    return [[*prompt, *ids] for prompt, ids in zip(prompts, continuations, strict=True)]


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
    before: Sequence[Sequence[int]] = (),
) -> str:
    """Format all prompted texts, also those before fine-tuning, and the first free samples."""
    page = [
        f"Samples at temperature {params.temperature:g}, top-k {params.top_k or 'all'}, "
        f"top-p {params.top_p:g}, seeds from {params.seed} on."
    ]
    page += [_indent(tokenizer.decode(ids)) for ids in prompted]
    if before:
        page.append("The same prompts before fine-tuning:")
        page += [_indent(tokenizer.decode(ids)) for ids in before]
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


class SuffixAutomaton:
    """An index of all substrings (runs of tokens) of a few texts.

    A state is a set of runs that end at the same positions. It stores the length of its longest
    run and a link to the state of the next shorter suffixes.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self._transitions: list[dict[int, int]] = [{}]
        self._link = [-1]
        self._length = [0]
        self._states_of_texts: list[list[int]] = []  # of each text, the state after each token
        state = ROOT
        for number, text in enumerate(texts, start=1):
            states = []
            for token in text:
                state = self._append(state, token)
                states.append(state)
            self._states_of_texts.append(states)
            state = self._append(state, -number)  # a unique separator: no run crosses two texts

    def longest_matches(self, other: Iterable[int]) -> list[int]:
        """Length of the longest run of each text that occurs in ``other``, in tokens."""
        transitions, link, length = self._transitions, self._link, self._length
        longest = [0] * len(transitions)  # per state
        state, matched = ROOT, 0
        for token in other:
            following = transitions[state].get(token)
            while following is None and state != ROOT:
                state = link[state]
                matched = length[state]
                following = transitions[state].get(token)
            if following is None:
                continue
            state, matched = following, matched + 1
            if matched > longest[state]:
                longest[state] = matched
        by_length = sorted(range(1, len(transitions)), key=length.__getitem__)
        for state in reversed(by_length):
            if longest[state] and link[state] != ROOT:
                longest[link[state]] = length[link[state]]  # suffixes of a match occur as well
        for state in by_length:
            longest[state] = longest[state] or longest[link[state]]
        return [
            max((longest[state] for state in states), default=0) for states in self._states_of_texts
        ]

    def _append(self, last: int, token: int) -> int:
        """Extend the text that ends in state ``last``, and return its new last state."""
        new = self._add_state({}, self._length[last] + 1, ROOT)
        state = last
        while state != -1 and token not in self._transitions[state]:
            self._transitions[state][token] = new
            state = self._link[state]
        if state == -1:
            return new
        target = self._transitions[state][token]
        if self._length[target] == self._length[state] + 1:
            self._link[new] = target
            return new
        clone = self._add_state(
            dict(self._transitions[target]), self._length[state] + 1, self._link[target]
        )
        while state != -1 and self._transitions[state].get(token) == target:
            self._transitions[state][token] = clone
            state = self._link[state]
        self._link[target] = self._link[new] = clone
        return new

    def _add_state(self, transitions: dict[int, int], length: int, link: int) -> int:
        self._transitions.append(transitions)
        self._length.append(length)
        self._link.append(link)
        return len(self._transitions) - 1


def longest_matches(texts: Sequence[Sequence[int]], training: TokenSplit) -> list[int]:
    """Length of the longest run of each text that occurs in the training text, in tokens."""
    starts = range(0, len(training), CHUNK_TOKENS)
    chunks = (training.read(at, min(at + CHUNK_TOKENS, len(training))) for at in starts)
    tokens = chain.from_iterable(chunk.tolist() for chunk in chunks)
    return SuffixAutomaton(texts).longest_matches(tokens)


def copied_share(texts: Sequence[Sequence[int]], matches: Sequence[int]) -> float:
    """Share of texts that are copies: the match covers half the text, and at least eight tokens."""
    copies = sum(
        match >= max(COPIED_SHARE * len(text), MIN_COPIED_TOKENS)
        for text, match in zip(texts, matches, strict=True)
    )
    return copies / len(texts)


def _indent(text: str) -> str:
    """Make a block of code of a text; a lone carriage return would end its line in Markdown."""
    lines = text.replace("\r\n", "\n").replace("\r", "␍").split("\n")
    return "\n".join(f"    {line}" for line in lines)
