"""Tokenize: clean documents to token shards.

dvc repro tokenize
"""

import time
from pathlib import Path

from atlas.stage import Run, run_stage
from atlas.tokens.encode import encode_corpus
from atlas.tokens.tokenizer import Tokenizer


def main(run: Run) -> None:
    """data/clean and models/tokenizer to data/tokens."""
    started = time.perf_counter()
    tokenizer = Tokenizer.load(Path("models/tokenizer"))
    metrics = encode_corpus(
        Path("data/clean"), tokenizer, run.output("data/tokens"), run.params.tokenize
    )
    run.write_metrics(metrics)
    size = sum(metrics[f"{split}_bytes"] for split in ("train", "val", "test"))
    run.timing["mb_per_second"] = round(size / 1e6 / (time.perf_counter() - started), 2)


if __name__ == "__main__":
    run_stage("tokenize", main)
