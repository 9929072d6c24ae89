"""What can be seen inside a model: where heads look, and how numbers are embedded."""

from pathlib import Path

import pandas as pd
import torch

from atlas.cleaning.documents import Split
from atlas.evaluation.evaluator import Subject
from atlas.evaluation.heads import KINDS, attention_of, digit_table, head_table
from atlas.evaluation.plots import draw_attention, draw_dynamics, draw_heads, draw_spectrum
from atlas.evaluation.questions import is_arithmetic
from atlas.evaluation.samples import prompts_of
from atlas.evaluation.scores import Numbers
from atlas.evaluation.spectrum import in_circle, is_modular, number_ids, peak_share, spectrum
from atlas.evaluation.tables import write_table
from atlas.inference.prompts import prepare_prompt
from atlas.model.decoder import Decoder, Transformer
from atlas.tokens.tokenizer import visible
from atlas.tokens.windows import EvaluationWindows

WINDOWS = 16  # of val, by which heads are judged
MOST_MAPS = 9  # prompts whose attention is drawn
LONGEST_MAP = 48  # tokens of one


def look_inside(subject: Subject, val_rows: pd.DataFrame, tables: Path, pictures: Path) -> Numbers:
    """Writes tables and pictures of what fits this model and this corpus."""
    draw_dynamics(val_rows, pictures / "dynamics.png")
    found: Numbers = {}
    if isinstance(subject.model, Decoder):
        _draw_maps(subject, subject.model, pictures)
        _judge_heads(subject, subject.model, tables, pictures)
        found |= _judge_digits(subject, subject.model, tables)
    if isinstance(subject.model, Transformer):
        found |= _transform_numbers(subject, subject.model, tables, pictures)
    return found


def _draw_maps(subject: Subject, model: Decoder, pictures: Path) -> None:
    given = subject.evaluate.attention_prompts or subject.evaluate.prompts
    if given or not subject.has_questions:
        texts = prompts_of(given, subject.tokenizer, subject.splits["val"])
        prompts = [prepare_prompt(model.config, ids) for ids in texts]
    else:
        prompts = [ids for _, ids in _first_of_each_source(subject)]
    longest = min(LONGEST_MAP, model.config.context_length)
    for number, prompt in enumerate(prompts[:MOST_MAPS], start=1):
        ids = prompt[:longest]
        weights = [each[0].numpy() for each in attention_of(model, torch.tensor([ids]))]
        labels = [visible(subject.tokenizer.piece(each)) for each in ids]
        draw_attention(weights, labels, pictures / f"attention-{number}.png")


def _first_of_each_source(subject: Subject) -> list[tuple[str, list[int]]]:
    asked = dict(reversed(_questions(subject, "val")))
    return sorted(asked.items())


def _questions(subject: Subject, split: Split) -> list[tuple[str, list[int]]]:
    """Source and ids of each question of a split, begun as the model reads it."""
    opened = [
        prepare_prompt(subject.model.config, ids) for ids in subject.questions_of(split).prompts
    ]
    return list(zip(subject.sources_of(split), opened, strict=True))


def _judge_heads(subject: Subject, model: Decoder, tables: Path, pictures: Path) -> None:
    found = EvaluationWindows(subject.splits["val"], model.config.context_length, 1).spread(WINDOWS)
    windows = [torch.from_numpy(batch.inputs[batch.mask]) for batch in found]
    table = head_table(model, windows, subject.evaluate.seed)
    write_table(table, tables, "heads")
    draw_heads(table, list(KINDS), pictures / "heads.png")


def _judge_digits(subject: Subject, model: Decoder, tables: Path) -> Numbers:
    separator, sources = model.config.separator, subject.sources_of("val")
    if not is_arithmetic(subject.tokenizer, separator, sources):
        return {}
    table = digit_table(model, _questions(subject, "val"), _questions(subject, subject.judge))
    if table.empty:  # nobody asks for a position
        return {}
    write_table(table, tables, "digits")
    return {
        f"attention_{operation.lower()}_found": float(found)
        for operation, found in zip(table["operation"], table["found"], strict=True)
    }


def _transform_numbers(
    subject: Subject, model: Transformer, tables: Path, pictures: Path
) -> Numbers:
    if not (subject.has_questions and is_modular(subject.sources_of("val"))):
        return {}
    ids = number_ids(subject.tokenizer, (each.text for each in subject.documents_of("val")))
    if not ids:
        return {}
    rows = [ids[number] for number in in_circle(len(ids), subject.sources_of("val")[0])]
    table = spectrum(model.embedding.weight.detach().double().cpu().numpy()[rows])
    write_table(table, tables, "spectrum")
    draw_spectrum(table, pictures / "spectrum.png")
    return {"embedding_peak_share": peak_share(table)}
