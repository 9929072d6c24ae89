"""Measure general English, to see what fine-tuning costs: text prediction and common knowledge.

The texts are fixed and were written for Atlas, in general.yaml next to this file: passages for bits
per byte, and beginnings of sentences, each with its right ending and three wrong ones. The model
chooses the ending with the highest log-likelihood per byte, as ``acc_norm`` of
lm-evaluation-harness does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.scores import Metrics, score_batches
from atlas.tokens.windows import NO_TARGET, TokenBatch, stack

TEXTS = Path(__file__).with_name("general.yaml")
SEPARATOR = " | "  # between a beginning and its endings
Losses = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GeneralTexts:
    """The content of general.yaml."""

    passages: list[str]
    cloze: list[list[str]]  # a beginning, its right ending, and wrong ones


class ScoredText(NamedTuple):
    """A text whose tokens from ``first`` on count."""

    ids: list[int]
    first: int = 0


@cache
def general_texts() -> GeneralTexts:
    """Read general.yaml."""
    content = yaml.safe_load(TEXTS.read_text(encoding="utf-8"))
    items = [line.split(SEPARATOR) for line in content["cloze"].splitlines()]
    return GeneralTexts(content["passages"], items)


def base_metrics(evaluator: Evaluator, base: Evaluator) -> Metrics:
    """Compute the numbers before fine-tuning, ``base_...``, and those of general English."""
    before = base.held_out_metrics() | general_metrics(base)
    return general_metrics(evaluator) | {f"base_{name}": value for name, value in before.items()}


def general_metrics(evaluator: Evaluator) -> Metrics:
    """Compute bits per byte of the passages, and the share of sentences that are ended right.

    Empty if the model does not read plain text, or the tokenizer can't express it.
    """
    tokenizer, texts = evaluator.tokenizer, general_texts()
    passages = [ScoredText(tokenizer.encode(text)) for text in texts.passages]
    endings = [
        ScoredText(tokenizer.encode(f"{beginning} {ending}"), len(tokenizer.encode(beginning)))
        for beginning, *endings in texts.cloze
        for ending in endings
    ]
    if evaluator.model.config.kind == "encoder_decoder":
        return {}
    if any(tokenizer.unk in text.ids for text in (*passages, *endings)):
        print("general text is not measured: the tokenizer has no tokens for English letters")
        return {}
    nats = text_losses(evaluator, passages)
    size = sum(len(text.encode()) for text in texts.passages)
    lengths = [len(ending.encode()) for _, *endings in texts.cloze for ending in endings]
    per_byte = text_losses(evaluator, endings) / np.array(lengths)
    chosen = per_byte.reshape(len(texts.cloze), -1).argmin(axis=1)
    return {
        "general_bits_per_byte": float(nats.sum() / np.log(2) / size),
        "general_accuracy": float((chosen == 0).mean()),
    }


def text_losses(evaluator: Evaluator, texts: Sequence[ScoredText]) -> Losses:
    """Return the total loss of each text in nats, (texts,).

    Each text begins as a document does, and is cut into windows like those of a split.
    """
    length, size = evaluator.model.config.sequence_length, evaluator.params.batch_size
    index = evaluator.splits["val"].index
    order = sorted(range(len(texts)), key=lambda number: len(texts[number].ids))
    windows = [window for number in order for window in _windows(texts[number], index.eos, length)]
    counted = [len(texts[number].ids) - texts[number].first for number in order]

    def batches() -> Iterator[TokenBatch[Any]]:
        for at in range(0, len(windows), size):
            group = windows[at : at + size]
            longest = max(len(window.ids) for window in group)
            rows = stack([np.array(window.ids) for window in group], longest - 1)
            batch = TokenBatch.from_rows(rows, index)
            for targets, window in zip(batch.targets, group, strict=True):
                targets[: window.first] = NO_TARGET
            yield batch

    losses = score_batches(evaluator.model, batches()).losses
    return np.bincount(np.repeat(order, counted), losses, len(texts)).astype(np.float64)


def _windows(text: ScoredText, start: int, length: int) -> Iterator[ScoredText]:
    """Cut a text into windows with the token before them, ``start`` before the first."""
    ids = [start, *text.ids]
    for at in range(0, len(text.ids), length):
        if at + length > text.first:
            yield ScoredText(ids[at : at + length + 1], max(0, text.first - at))
