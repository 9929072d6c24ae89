"""Encode the clean documents into token shards.

    dvc repro tokenize

``ATLAS_PARALLEL`` sets where this runs: a number of processes, dask:ADDRESS or ray:ADDRESS.
"""

import time
from pathlib import Path

from atlas.pipeline.stage import Metric, StageRun, run_stage
from atlas.tokens.encode import encode_corpus
from atlas.tokens.report import VocabularyReport
from atlas.tokens.tokenizer import Tokenizer

CLEAN, TOKENIZER = Path("data/clean"), Path("models/tokenizer")


def main(run: StageRun) -> None:
    """Turn data/clean and models/tokenizer into data/tokens and a report on the vocabulary."""
    started = time.perf_counter()
    folder = run.output("data/tokens")
    index, counts = encode_corpus(CLEAN, TOKENIZER, folder, run.params.tokenize)
    size = sum(split.bytes for split in index.splits.values())
    run.timing["mb_per_second"] = round(size / 1e6 / (time.perf_counter() - started), 2)
    metrics: dict[str, Metric] = {}
    for name, split in index.splits.items():
        metrics |= {f"{name}_tokens": split.tokens, f"{name}_bytes": split.bytes}
        if split.conversations:
            metrics[f"{name}_conversations"] = split.conversations
        for corpus, part in split.corpora.items():
            metrics[f"{name}_tokens.{corpus}"] = part.tokens
            metrics[f"{name}_documents.{corpus}"] = part.documents
    run.write_metrics(metrics)

    report = VocabularyReport(Tokenizer.load(TOKENIZER), index, counts)
    report.write_pieces(folder / "pieces.csv")
    report.write_page(run.output("metrics/tokenizer.html"), CLEAN / "val")
    run.write_metrics(report.metrics(), "tokenizer")


if __name__ == "__main__":
    run_stage("tokenize", main)
