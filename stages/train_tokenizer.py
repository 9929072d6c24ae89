"""Train the tokenizer on the training documents, and measure it on the validation ones.

dvc repro train_tokenizer
"""

from pathlib import Path

from atlas.cleaning.documents import read_documents
from atlas.stage import Run, run_stage
from atlas.tokens.train_tokenizer import measure, train_tokenizer


def main(run: Run) -> None:
    """data/clean to models/tokenizer."""
    train = read_documents(Path("data/clean/train"))
    tokenizer = train_tokenizer(train, run.params.tokenizer, run.output("models/tokenizer"))
    run.write_metrics(measure(tokenizer, read_documents(Path("data/clean/val"))))


if __name__ == "__main__":
    run_stage("train_tokenizer", main)
