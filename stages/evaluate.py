"""Evaluate the trained model on val and test, sample from it and inspect its attention.

dvc repro evaluate
"""

from pathlib import Path

import pandas as pd

from atlas.evaluation.evaluator import Evaluator
from atlas.evaluation.general import base_metrics
from atlas.evaluation.interpretability import inspect_model
from atlas.evaluation.questions import write_question_tables
from atlas.evaluation.samples import write_samples
from atlas.evaluation.scores import Metrics
from atlas.evaluation.tables import corpus_metrics, write_score_tables
from atlas.model.language_model import choose_device
from atlas.pipeline.stage import StageRun, run_stage

MODEL, TOKENIZER = Path("models/model"), Path("models/tokenizer")
TOKENS, DOCUMENTS = Path("data/tokens"), Path("data/clean")
VALIDATIONS = Path("metrics/val.csv")


def main(run: StageRun) -> None:
    """Write metrics/evaluate.json, samples, tables and plots of models/model."""
    params, device = run.params.evaluate, choose_device()
    evaluator = Evaluator.load(MODEL, TOKENIZER, TOKENS, DOCUMENTS, params, device)
    base = evaluator.of_base(Path(run.params.train.start))
    tables, plots = run.output_folder("metrics/tables"), run.output_folder("metrics/pictures")
    metrics: Metrics = {}
    for split in evaluator.held_out_splits:
        scores = evaluator.score(split)
        split_metrics = evaluator.metrics(split, scores)
        split_metrics |= corpus_metrics(evaluator, split, scores)
        metrics |= {f"{split}_{name}": value for name, value in split_metrics.items()}
    write_score_tables(evaluator, scores, tables)  # the last split is the table split
    metrics |= write_question_tables(evaluator, scores, tables)
    metrics |= write_samples(evaluator, run.output("metrics/samples.md"), tables, base)
    metrics |= inspect_model(evaluator, pd.read_csv(VALIDATIONS), tables, plots)
    if base is not None:
        metrics |= base_metrics(evaluator, base)
    run.write_metrics(metrics)


if __name__ == "__main__":
    run_stage("evaluate", main)
