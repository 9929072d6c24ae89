"""Train the model on the token shards.

    dvc repro train

Stopped (Ctrl+C, SIGTERM) or killed, it goes on at the next ``dvc repro`` and ends with the
same bytes as an uninterrupted run. ``ATLAS_DEVICE`` picks the device, ``ATLAS_NPROC`` the number
of processes; docs/training.md has the rest.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from atlas.cleaning.documents import SPLITS, Split
from atlas.model.baselines import Bigram
from atlas.model.config import ModelConfig, check_tokenizer
from atlas.model.language_model import LanguageModel, choose_device
from atlas.model.storage import LAST_WEIGHTS, WEIGHTS, write_weights
from atlas.pipeline.stage import StageRun, project_root, run_stage
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import layout_of
from atlas.training.bigram import count_pairs
from atlas.training.checkpoint import Checkpoints, whole_weights
from atlas.training.distributed import World, run_in_processes, the_world
from atlas.training.memory import memory_errors, peak_bytes
from atlas.training.metrics import Progress
from atlas.training.samples import Sampler, samples_page
from atlas.training.train_step import COLUMNS as LAYER_COLUMNS
from atlas.training.trainer import make_training, new_model

TOKENS, TOKENIZER = Path("data/tokens"), Path("models/tokenizer")
Splits = dict[Split, TokenSplit]


def main(run: StageRun) -> None:
    """data/tokens to models/model."""
    make_deterministic()
    with the_world(choose_device()) as world, memory_errors(run.params.train, world.device):
        splits = open_splits(run)
        model = new_model(run.params, TokenIndex.read(TOKENS), world)
        checkpoints = Checkpoints(run.checkpoints)
        progress, last = train(run, model, splits, checkpoints, world)
        if world.is_first:
            write_model(run, model.config, checkpoints, last)
            write_logs(run, progress, model, world)


def make_deterministic() -> None:
    """The same inputs give the same bytes, on a GPU too; what was compiled is kept."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(project_root() / ".ckpt/compiled"))


def open_splits(run: StageRun) -> Splits:
    """The tokens; all splits are looked at, before evaluate has to refuse one."""
    first = {"train": run.params.train.max_train_tokens}
    splits = {split: TokenSplit(TOKENS, split, first.get(split)) for split in SPLITS}
    for tokens in splits.values():
        layout_of(tokens, run.params.model.context_length)
    return splits


def train(
    run: StageRun, model: LanguageModel, splits: Splits, checkpoints: Checkpoints, world: World
) -> tuple[Progress, dict[str, Tensor]]:
    """Counts a bigram model, trains any other; what was logged, and the last weights."""
    tokenizer = Tokenizer.load(TOKENIZER)
    check_tokenizer(model.config, tokenizer.sha256, str(TOKENIZER))
    length = run.params.train.sample_tokens
    sample = Sampler(model, tokenizer, splits["val"], length) if length else None
    if isinstance(model, Bigram):  # by one process, while others would only write over it
        if not world.is_first:
            return Progress(), {}
        return count_pairs(model, splits, run.params, checkpoints, sample)
    training = make_training(
        model, run.params, splits, checkpoints, world, events=run.events, sample=sample
    )
    progress = training.run()
    return progress, whole_weights(training.learner)


def write_model(
    run: StageRun, config: ModelConfig, checkpoints: Checkpoints, last: dict[str, Tensor]
) -> None:
    """The best weights as the model, the last ones beside them."""
    folder = run.output_folder("models/model")
    config.write(folder)
    shutil.copyfile(checkpoints.best, folder / WEIGHTS)
    write_weights(last, folder / LAST_WEIGHTS)


def write_logs(run: StageRun, progress: Progress, model: LanguageModel, world: World) -> None:
    """Metrics, curves, samples and speeds."""
    pd.DataFrame(progress.train_rows).to_csv(run.output("metrics/train.csv"), index=False)
    pd.DataFrame(progress.val_rows).to_csv(run.output("metrics/val.csv"), index=False)
    layers = pd.DataFrame(progress.layer_rows, columns=list(LAYER_COLUMNS))
    layers.to_csv(run.output("metrics/layers.csv"), index=False)
    page = samples_page(progress.samples)
    run.output("metrics/train_samples.md").write_text(page, encoding="utf-8")
    run.timing_rows += progress.speed_rows
    run.write_metrics(progress.metrics() | {"parameters": model.parameter_count()})
    speeds = pd.DataFrame(progress.speed_rows).drop(columns="step").median()
    run.timing |= {str(key): float(value) for key, value in speeds.items()}
    run.timing["peak_memory_mb"] = round(peak_bytes(world.device) / 1e6)
    run.timing["processes"] = world.size


if __name__ == "__main__":
    run_in_processes("stages.train", lambda: run_stage("train", main))
