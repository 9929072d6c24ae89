"""Evaluate the trained model on all of val and test, sample from it, and look inside.

dvc repro evaluate
"""

from pathlib import Path

import pandas as pd

from atlas.evaluation.evaluator import Subject
from atlas.evaluation.interpretability import look_inside
from atlas.evaluation.scores import Numbers
from atlas.evaluation.tables import write_question_tables, write_samples, write_split_tables
from atlas.model.language_model import choose_device
from atlas.pipeline.stage import StageRun, run_stage

MODEL, TOKENIZER = Path("models/model"), Path("models/tokenizer")
TOKENS, DOCUMENTS = Path("data/tokens"), Path("data/clean")
VAL_ROWS = Path("metrics/val.csv")


def main(run: StageRun) -> None:
    """models/model to metrics/evaluate.json, samples, tables and pictures."""
    subject = Subject.load(
        MODEL, TOKENIZER, TOKENS, DOCUMENTS, run.params.evaluate, choose_device()
    )
    tables, pictures = run.output_folder("metrics/tables"), run.output_folder("metrics/pictures")
    metrics: Numbers = {}
    for split in subject.held_out:
        scores = subject.scores(split)
        measured = subject.measure(split, scores)
        metrics |= {f"{split}_{name}": value for name, value in measured.items()}
    write_split_tables(subject, scores, tables)  # of the last one
    metrics |= write_question_tables(subject, scores, tables)
    metrics |= write_samples(subject, run.output("metrics/samples.md"), tables)
    metrics |= look_inside(subject, pd.read_csv(VAL_ROWS), tables, pictures)
    run.write_metrics(metrics)


if __name__ == "__main__":
    run_stage("evaluate", main)
