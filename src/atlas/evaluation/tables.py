"""The tables of metrics/tables/: what single numbers cannot tell."""

from pathlib import Path

import pandas as pd

from atlas.evaluation.evaluator import Subject
from atlas.evaluation.memorisation import longest_matches
from atlas.evaluation.questions import confusion_table, edge_cases, failures, is_arithmetic
from atlas.evaluation.samples import (
    continuations,
    excerpts,
    free_sample_table,
    page_of,
    prompts_of,
    text_measures,
)
from atlas.evaluation.scores import (
    Numbers,
    Scores,
    Sums,
    by_document,
    by_source,
    calibration_table,
    with_measures,
)


def write_table(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Writes a CSV file, numbers with nine digits."""
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.9g", lineterminator="\n")


def write_split_tables(subject: Subject, scores: Scores, folder: Path) -> None:
    """Documents, sources, calibration and confusion of the split that judges."""
    questions = subject.has_questions
    documents = subject.documents_of(subject.judge)
    table = by_document(scores, subject.splits[subject.judge], documents)
    write_table(with_measures(table, questions=questions), folder, "documents")
    write_table(with_measures(by_source(table), questions=questions), folder, "sources")
    write_table(calibration_table(scores), folder, "calibration")
    confusion = confusion_table(scores, subject.tokenizer, questions=questions)
    write_table(confusion, folder, "confusion")


def write_question_tables(subject: Subject, scores: Scores, folder: Path) -> Numbers:
    """Wrong answers, and the edge cases of the arithmetic language; nothing of other text."""
    if not subject.has_questions:
        return {}
    model, tokenizer = subject.model, subject.tokenizer
    questions = subject.questions_of(subject.judge)
    sources = subject.sources_of(subject.judge)
    sums = Sums.of(scores, subject.splits[subject.judge])
    write_table(failures(model, tokenizer, questions, sources, sums), folder, "failures")
    if not is_arithmetic(tokenizer, model.config.separator, sources):
        return {}
    training = subject.questions_of("train")
    cases = edge_cases(model, tokenizer, sorted(set(sources)), training, questions)
    write_table(cases, folder, "edge_cases")
    return {"edge_case_accuracy": float(cases["right"].mean())}


def write_samples(subject: Subject, page: Path, folder: Path) -> Numbers:
    """The page of samples; of text that is no questions also what is copied and repeated."""
    evaluate, val = subject.evaluate, subject.splits["val"]
    prompts = prompts_of(evaluate.prompts, subject.tokenizer, val)
    written = continuations(subject.model, prompts, evaluate)
    count = 0 if subject.has_questions else evaluate.free_samples
    free = continuations(subject.model, [[]] * count, evaluate)
    prompted = [[*prompt, *more] for prompt, more in zip(prompts, written, strict=True)]
    text = page_of(prompted, free, subject.tokenizer, evaluate)
    page.write_text(text, encoding="utf-8")
    if not free:
        return {}
    real = excerpts(val, [len(ids) for ids in free])
    matches = longest_matches([*free, *real], subject.splits["train"])
    write_table(free_sample_table(free, matches[: len(free)], subject.tokenizer), folder, "samples")
    return text_measures("samples", free, matches[: len(free)]) | text_measures(
        "real_text", real, matches[len(free) :]
    )
