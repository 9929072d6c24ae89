"""Train the model on the token shards.

    dvc repro train

After Ctrl+C, SIGTERM or a crash, the next ``dvc repro`` continues and ends with the same bytes as
an uninterrupted run. ``ATLAS_DEVICE`` chooses the device, ``ATLAS_NPROC`` the number of processes;
docs/training.md has the rest.
"""

import os
import shutil
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from atlas.cleaning.documents import SPLITS
from atlas.model.baselines import Bigram
from atlas.model.config import ModelConfig, check_tokenizer
from atlas.model.language_model import choose_device
from atlas.model.storage import (
    LAST_WEIGHTS,
    WEIGHTS,
    weights_of,
    write_weights,
)
from atlas.pipeline.files import remove
from atlas.pipeline.stage import StageRun, project_root, run_stage
from atlas.tokens.shards import TokenIndex, TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import layout_of
from atlas.training.bigram import fit_bigram
from atlas.training.checkpoint import Checkpoints, full_weights
from atlas.training.distributed import DistributedContext, distributed_context, launch
from atlas.training.memory import explain_out_of_memory, peak_memory
from atlas.training.metrics import TrainState
from atlas.training.samples import Sampler, samples_page
from atlas.training.train_step import LAYER_COLUMNS
from atlas.training.trainer import Trainer, build_model

TOKENS, TOKENIZER, LIVE = Path("data/tokens"), Path("models/tokenizer"), Path("metrics/live")


def main(run: StageRun) -> None:
    """Train models/model on data/tokens."""
    make_deterministic()
    with (
        distributed_context(choose_device()) as context,
        explain_out_of_memory(run.params.train, context.device),
    ):
        limits = {"train": run.params.train.max_train_tokens}
        splits = {split: TokenSplit(TOKENS, split, limits.get(split)) for split in SPLITS}
        for split in splits.values():  # test as well: evaluate would refuse it after the training
            layout_of(split, run.params.model.context_length)
        tokenizer = Tokenizer.load(TOKENIZER)
        model = build_model(run.params, TokenIndex.read(TOKENS), context)
        check_tokenizer(model.config, tokenizer.sha256, str(TOKENIZER))
        length = run.params.train.sample_tokens
        sample = Sampler(model, tokenizer, splits["val"], length) if length else None
        checkpoints = Checkpoints(run.checkpoints)
        if context.is_main:
            remove(LIVE)
        if isinstance(model, Bigram):  # counted, by one process
            state = TrainState()
            if context.is_main:
                state = fit_bigram(model, splits, run.params, checkpoints, sample)
            last = weights_of(model)
        else:
            trainer = Trainer(
                model,
                run.params,
                splits,
                checkpoints,
                context,
                events=run.events,
                live=LIVE,
                sample=sample,
            )
            state = trainer.fit()
            last = full_weights(model, context)
        if context.is_main:
            write_model(run, model.config, checkpoints, last)
            write_metrics(run, state, model.parameter_count(), context)


def make_deterministic() -> None:
    """Make equal inputs give equal bytes, also on a GPU; keep compiled kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(project_root() / ".ckpt/compiled"))


def write_model(
    run: StageRun, config: ModelConfig, checkpoints: Checkpoints, last: dict[str, Tensor]
) -> None:
    """Write the best weights as the model, and the last ones beside them."""
    folder = run.output_folder("models/model")
    config.write(folder)
    shutil.copyfile(checkpoints.best, folder / WEIGHTS)
    write_weights(last, folder / LAST_WEIGHTS)


def write_metrics(
    run: StageRun, state: TrainState, parameters: int, context: DistributedContext
) -> None:
    """Write metrics, curves, samples and timings."""
    pd.DataFrame(state.train_rows).to_csv(run.output("metrics/train.csv"), index=False)
    pd.DataFrame(state.val_rows).to_csv(run.output("metrics/val.csv"), index=False)
    layers = pd.DataFrame(state.layer_rows, columns=list(LAYER_COLUMNS))
    layers.to_csv(run.output("metrics/layers.csv"), index=False)
    page = samples_page(state.samples)
    run.output("metrics/train_samples.md").write_text(page, encoding="utf-8")
    run.write_metrics(state.final_metrics() | {"parameters": parameters})
    run.timing_rows += state.speed_rows
    medians = pd.DataFrame(state.speed_rows).drop(columns="step").median()
    run.timing |= {str(key): float(value) for key, value in medians.items()}
    run.timing["peak_memory_mb"] = round(peak_memory(context.device) / 1e6)
    run.timing["processes"] = context.size


if __name__ == "__main__":
    launch("stages.train", lambda: run_stage("train", main))
