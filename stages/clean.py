"""Clean: raw files to documents, split into train, val and test.

dvc repro clean
"""

from pathlib import Path

from atlas.cleaning.clean import clean_corpus
from atlas.stage import Run, run_stage


def main(run: Run) -> None:
    """data/raw to data/clean."""
    metrics = clean_corpus(Path("data/raw"), run.output("data/clean"), run.params.clean)
    run.write_metrics(metrics)


if __name__ == "__main__":
    run_stage("clean", main)
