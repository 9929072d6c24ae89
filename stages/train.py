"""Train the model on the token shards.

    dvc repro train

Stopped (Ctrl+C, SIGTERM) or killed, it goes on at the next ``dvc repro`` and ends with the
same bytes as an uninterrupted run. ``ATLAS_DEVICE`` picks the device,
``ATLAS_CHECKPOINT_SECONDS`` the time between checkpoints (60).
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import torch

from atlas.cleaning.splits import SPLITS
from atlas.model.baselines import Bigram
from atlas.model.config import ModelConfig
from atlas.model.counts import count
from atlas.model.device import choose_device
from atlas.model.initialise import initialise
from atlas.model.language_model import LanguageModel
from atlas.model.make import make_model
from atlas.model.storage import WEIGHTS, save_weights
from atlas.stage import Run, run_stage
from atlas.tokens.index import TokenIndex
from atlas.tokens.split import TokenSplit
from atlas.tokens.windows import EvaluationWindows, TrainingWindows, layout_of
from atlas.training.checkpoint import Checkpoints, Progress
from atlas.training.counting import Counting
from atlas.training.loop import Training
from atlas.training.utilisation import matmul_flops

TOKENS = Path("data/tokens")
LAST_WEIGHTS = "last.safetensors"


def main(run: Run) -> None:
    """data/tokens to models/model."""
    make_deterministic()
    device = choose_device()
    model = new_model(run).to(device)
    checkpoints = Checkpoints(run.checkpoints)
    progress = train(run, model, checkpoints)
    write_model(run, model, checkpoints)
    write_logs(run, progress, model, device)


def make_deterministic() -> None:
    """The same inputs give the same bytes, on a GPU too."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)


def new_model(run: Run) -> LanguageModel:
    """A model of params.yaml's shape for the vocabulary of the tokens, with its first weights."""
    index = TokenIndex.read(TOKENS)
    config = ModelConfig(
        **run.params.model.model_dump(),
        vocab_size=index.vocab_size,
        eos=index.eos,
        separator=index.separator,
        tokenizer_sha256=index.tokenizer_sha256,
    )
    model = make_model(config)
    initialise(model, run.params.train.seed, run.params.train.init)
    return model


def train(run: Run, model: LanguageModel, checkpoints: Checkpoints) -> Progress:
    """Counts a bigram model, trains any other."""
    length, train = run.params.model.context_length, run.params.train
    splits = {split: TokenSplit(TOKENS, split) for split in SPLITS}
    for tokens in splits.values():  # those of test as well, before evaluate has to refuse them
        layout_of(tokens, length)
    at_once = train.batch_size // train.accumulation
    val = EvaluationWindows(splits["val"], length, at_once)
    if isinstance(model, Bigram):
        data = EvaluationWindows(splits["train"], length, at_once)
        return Counting(model, data, val, checkpoints).run()
    windows = TrainingWindows(splits["train"], length, train.batch_size, train.seed)
    return Training(model, windows, val, train, checkpoints).run()


def write_model(run: Run, model: LanguageModel, checkpoints: Checkpoints) -> None:
    """The best weights as the model, the last ones beside them."""
    folder = run.output("models/model")
    folder.mkdir()
    model.config.write(folder)
    shutil.copyfile(checkpoints.best, folder / WEIGHTS)
    save_weights(model, folder / LAST_WEIGHTS)


def write_logs(run: Run, progress: Progress, model: LanguageModel, device: torch.device) -> None:
    """Metrics, curves and speeds."""
    pd.DataFrame(progress.train_rows).to_csv(run.output("metrics/train.csv"), index=False)
    pd.DataFrame(progress.val_rows).to_csv(run.output("metrics/val.csv"), index=False)
    run.timing_rows += progress.speed_rows
    run.write_metrics(
        {
            "best_val_loss": progress.best_loss,
            "best_step": progress.best_step,
            "last_train_loss": progress.train_rows[-1]["loss"],
            "last_val_loss": progress.val_rows[-1]["loss"],
            "tokens_seen": progress.tokens,
            "parameters": model.parameter_count(),
        }
    )
    speed = pd.DataFrame(progress.speed_rows)["tokens_per_second"].median()
    run.timing["tokens_per_second"] = int(speed)
    run.timing["flop_utilisation"] = round(
        speed * count(model.config).training_flops / matmul_flops(device), 3
    )


if __name__ == "__main__":
    run_stage("train", main)
