"""Interpretability: attention maps, roles of heads, and the Fourier spectrum of numbers.

A model that has grokked addition modulo p places its numbers on a few circles: in the Fourier
basis over the numbers, a handful of frequencies has all of the power (arXiv:2301.05217). A model
that has memorized its training pairs has no such peaks. A product is a sum of logarithms, so for
products the numbers are ordered by discrete logarithm.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from atlas.cleaning.documents import Split
from atlas.corpora.modular import OPERATIONS
from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.heads import (
    KEY_KINDS,
    Question,
    Reals,
    attention_weights,
    digit_table,
    head_table,
)
from atlas.evaluation.plots import plot_attention, plot_dynamics, plot_heads, plot_spectrum
from atlas.evaluation.questions import is_arithmetic
from atlas.evaluation.samples import choose_prompts
from atlas.evaluation.scores import Metrics
from atlas.evaluation.tables import write_table
from atlas.inference.batch import prepare_prompt
from atlas.model.decoder import Decoder, Transformer
from atlas.tokens.tokenizer import Tokenizer, visible
from atlas.tokens.windows import EvaluationWindows

HEAD_WINDOWS = 16  # windows of val that head scores are measured on
MAX_MAPS = 9  # prompts with an attention map
MAX_MAP_TOKENS = 48
PRODUCTS = ("multiply", "divide")
MIN_NUMBERS = 5  # for a spectrum
PEAK_FREQUENCIES = 10  # whose share of the power is a metric


def inspect_model(
    evaluator: Evaluator, validations: pd.DataFrame, tables: Path, plots: Path
) -> Metrics:
    """Write all tables and plots that apply to the model and its corpus.

    ``validations`` holds the rows of metrics/val.csv.
    """
    plot_dynamics(validations, plots / "dynamics.png")
    metrics: Metrics = {}
    if isinstance(evaluator.model, Decoder):
        _plot_attention_maps(evaluator, evaluator.model, plots)
        _write_heads(evaluator, evaluator.model, tables, plots)
        metrics |= _write_digits(evaluator, evaluator.model, tables)
    if isinstance(evaluator.model, Transformer):
        metrics |= _write_spectrum(evaluator, evaluator.model, tables, plots)
    return metrics


def _plot_attention_maps(evaluator: Evaluator, model: Decoder, plots: Path) -> None:
    texts = evaluator.params.attention_prompts or evaluator.params.prompts
    if texts or not evaluator.has_questions:
        chosen = choose_prompts(texts, evaluator.tokenizer, evaluator.splits["val"])
        prompts = [prepare_prompt(model.config, ids) for ids in chosen]
    else:  # the first question of each source
        first = dict(reversed(_questions(evaluator, "val")))
        prompts = [ids for _, ids in sorted(first.items())]
    max_tokens = min(MAX_MAP_TOKENS, model.config.context_length)
    for number, prompt in enumerate(prompts[:MAX_MAPS], start=1):
        ids = prompt[:max_tokens]
        weights = [each[0].numpy() for each in attention_weights(model, torch.tensor([ids]))]
        labels = [visible(evaluator.tokenizer.piece(token)) for token in ids]
        plot_attention(weights, labels, plots / f"attention-{number}.png")


def _questions(evaluator: Evaluator, split: Split) -> list[Question]:
    """Source and ids of each question of a split, as the model reads it."""
    config, questions = evaluator.model.config, evaluator.questions(split)
    prompts = [prepare_prompt(config, ids) for ids in questions.prompts]
    return list(zip(evaluator.sources(split), prompts, strict=True))


def _write_heads(evaluator: Evaluator, model: Decoder, tables: Path, plots: Path) -> None:
    windows = EvaluationWindows(evaluator.splits["val"], model.config.context_length, 1)
    ids = [torch.from_numpy(batch.inputs[batch.mask]) for batch in windows.spread(HEAD_WINDOWS)]
    table = head_table(model, ids, evaluator.params.seed)
    write_table(table, tables, "heads")
    plot_heads(table, KEY_KINDS, plots / "heads.png")


def _write_digits(evaluator: Evaluator, model: Decoder, tables: Path) -> Metrics:
    separator, sources = model.config.separator, evaluator.sources("val")
    if not is_arithmetic(evaluator.tokenizer, separator, sources):
        return {}
    selection, test = (_questions(evaluator, split) for split in ("val", evaluator.table_split))
    table = digit_table(model, selection, test)
    if table.empty:  # no operation asks for a position
        return {}
    write_table(table, tables, "digits")
    return {
        f"attention_{operation.lower()}_found": float(found)
        for operation, found in zip(table["operation"], table["found"], strict=True)
    }


def _write_spectrum(evaluator: Evaluator, model: Transformer, tables: Path, plots: Path) -> Metrics:
    sources = evaluator.sources("val")
    if not (evaluator.has_questions and is_modular(sources)):
        return {}
    texts = (document.text for document in evaluator.documents("val"))
    ids = number_ids(evaluator.tokenizer, texts)
    if not ids:
        return {}
    ordered = [ids[number] for number in circle_order(len(ids), sources[0])]
    table = spectrum(model.embedding.weight.detach().double().cpu().numpy()[ordered])
    write_table(table, tables, "spectrum")
    plot_spectrum(table, plots / "spectrum.png")
    return {"embedding_peak_share": peak_share(table)}


def is_modular(sources: Sequence[str]) -> bool:
    """Check that all documents are equations of one modular operation."""
    return len(set(sources)) == 1 and sources[0] in OPERATIONS


def number_ids(tokenizer: Tokenizer, texts: Iterable[str]) -> list[int]:
    """Ids of 0, 1 and so on up to the largest number in the texts.

    Empty if one of the numbers is not a single token, or if there are too few for a spectrum.
    """
    words = {word for text in texts for word in text.split()}
    largest = max((int(word) for word in words if word.isdecimal()), default=0)
    encoded = [tokenizer.encode(str(number)) for number in range(largest + 1)]
    if len(encoded) < MIN_NUMBERS:
        return []
    if any(len(ids) != 1 or ids[0] == tokenizer.unk for ids in encoded):
        return []
    return [ids[0] for ids in encoded]


def circle_order(numbers: int, operation: str) -> list[int]:
    """Order numbers along the circle of an operation: by value, or by discrete logarithm.

    By value as well for products modulo a number without a generator of 1 to p - 1, which is any
    that is not prime.
    """
    if operation in PRODUCTS:
        for generator in range(2, numbers):
            powers = [pow(generator, exponent, numbers) for exponent in range(numbers - 1)]
            if sorted(powers) == list(range(1, numbers)):
                return powers
    return list(range(numbers))


def spectrum(embedding: Reals) -> pd.DataFrame:
    """Compute the share of the power at each frequency from 1 on; the mean is left out.

    Args:
        embedding: of the numbers in circle order, (p, C).

    Returns:
        Columns frequency (periods over all numbers) and share.
    """
    waves = np.fft.rfft(embedding - embedding.mean(axis=0), axis=0)[1:]  # (p // 2, C)
    power = (np.abs(waves) ** 2).sum(axis=1)
    if len(embedding) % 2 == 0:
        power[:-1] *= 2  # except the highest, each frequency stands for a conjugate pair
    share = power / power.sum()
    return pd.DataFrame({"frequency": np.arange(1, len(share) + 1), "share": share})


def peak_share(table: pd.DataFrame) -> float:
    """Share of the power at the strongest frequencies of a spectrum."""
    return float(table["share"].nlargest(PEAK_FREQUENCIES).sum())
