"""Train the model on the token shards.

    dvc repro train

After Ctrl+C, SIGTERM or a crash, the next ``dvc repro`` continues and ends with the same bytes as
an uninterrupted run. ``ATLAS_DEVICE`` chooses the device, ``ATLAS_NPROC`` the number of processes;
docs/training.md has the rest.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from atlas.model.config import check_tokenizer
from atlas.model.counts import count
from atlas.model.language_model import choose_device
from atlas.params.start import is_empty
from atlas.pipeline.files import remove
from atlas.pipeline.stage import Metric, StageRun, project_root, run_stage
from atlas.tokens.shards import TokenIndex
from atlas.tokens.tokenizer import Tokenizer
from atlas.training.checkpoint import Checkpoints, full_weights
from atlas.training.distributed import DistributedContext, distributed_context, launch
from atlas.training.memory import explain_out_of_memory, peak_memory, reuse_memory, trained_count
from atlas.training.metrics import TrainState, sample_text, samples_page
from atlas.training.start import origin_of
from atlas.training.train_step import make_deterministic
from atlas.training.trainer import Trainer, build_model, corpora_seen, open_splits

TOKENS, TOKENIZER, LIVE = Path("data/tokens"), Path("models/tokenizer"), Path("metrics/live")


def main(run: StageRun) -> None:
    """Train models/model on data/tokens."""
    params, train = run.params, run.params.train
    make_deterministic(project_root() / ".ckpt/compiled")
    reuse_memory()
    with (
        distributed_context(choose_device()) as context,
        explain_out_of_memory(train, context.device),
    ):
        window = train.sequence_length or run.params.model.context_length
        splits = open_splits(TOKENS, window, train.max_train_tokens)
        tokenizer = Tokenizer.load(TOKENIZER)
        model = build_model(params, TokenIndex.read(TOKENS), context, tokenizer)
        check_tokenizer(model.config, tokenizer.sha256, str(TOKENIZER))
        length = train.sample_tokens
        sample = partial(sample_text, model, tokenizer, splits["val"], length) if length else None
        checkpoints = Checkpoints(run.checkpoints)
        if context.is_main:
            remove(LIVE)
        trainer = Trainer(model, params, splits, checkpoints, context, run.events, LIVE, sample)
        state, last = trainer.fit(), full_weights(model, context)

        def write() -> None:
            checkpoints.write_model(run.output_folder("models/model"), model.config, last, train)
            is_weighted = run.params.corpus.mix and run.params.model.kind != "bigram"
            parameters = count(model.config).total_parameters
            more: dict[str, Metric] = {"parameters": parameters}
            if (trained := trained_count(model)) < parameters:
                more["trained_parameters"] = trained
            if is_weighted:
                more |= corpora_seen(trainer.data, state)
            if not is_empty(start := Path(train.start)):
                more["start"] = origin_of(start)["name"]
            if run.params.model.kind != "bigram":
                more["precision"] = trainer.train_step.precision.name
            write_metrics(run, state, more, context)

        trainer.write_outputs(state, write, run.discard_outputs)


def write_metrics(
    run: StageRun, state: TrainState, more: Mapping[str, Metric], context: DistributedContext
) -> None:
    """Write metrics, curves, samples and timings."""
    for name, table in state.tables().items():
        table.to_csv(run.output(f"metrics/{name}.csv"), index=False, na_rep="nan")
    page = samples_page(state.samples)
    run.output("metrics/train_samples.md").write_text(page, encoding="utf-8")
    run.write_metrics({**state.final_metrics(), **more})
    run.timing_rows[:] = state.speed_rows
    run.timing |= state.median_speed()
    run.timing["peak_memory_mb"] = round(peak_memory(context.device) / 1e6)
    run.timing["processes"] = context.size


if __name__ == "__main__":
    launch("stages.train", lambda: run_stage("train", main))
