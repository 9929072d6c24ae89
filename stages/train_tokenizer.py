"""Train the tokenizer on the training documents, or load a user-supplied one.

dvc repro train_tokenizer
"""

import logging
from pathlib import Path

from atlas.cleaning.documents import read_documents
from atlas.pipeline.stage import StageRun, run_stage
from atlas.tokens.train_tokenizer import compatibility_warnings, make_tokenizer, round_trip_losses


def main(run: StageRun) -> None:
    """Turn data/clean into models/tokenizer."""
    documents, mix = Path("data/clean/train"), run.params.corpus.mix
    template = run.params.chat.read()
    tokenizer = make_tokenizer(documents, run.params.tokenizer, mix, template)
    tokenizer.save(run.output("models/tokenizer"))
    for warning in compatibility_warnings(tokenizer, read_documents(documents)):
        logging.getLogger(__name__).warning("export may refuse this tokenizer: %s", warning)
    losses = round_trip_losses(tokenizer, read_documents(Path("data/clean/val")))
    run.write_metrics({"vocab_size": tokenizer.vocab_size, "val_round_trip_losses": losses})


if __name__ == "__main__":
    run_stage("train_tokenizer", main)
