"""Evaluate the trained model on all of val and test, and sample from it.

dvc repro evaluate
"""

from pathlib import Path

from atlas.cleaning.splits import Split
from atlas.evaluation.perplexity import evaluate_split
from atlas.evaluation.samples import write_samples
from atlas.model.device import choose_device
from atlas.model.storage import check_tokenizer, load_model
from atlas.stage import Metric, Run, run_stage
from atlas.tokens.split import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import EvaluationWindows

TOKENS = Path("data/tokens")
HELD_OUT: tuple[Split, ...] = ("val", "test")


def main(run: Run) -> None:
    """models/model to metrics/evaluate.json and metrics/samples.md."""
    model = load_model(Path("models/model"), choose_device())
    tokenizer = Tokenizer.load(Path("models/tokenizer"))
    check_tokenizer(model.config, tokenizer.sha256, "models/tokenizer")
    metrics: dict[str, Metric] = {}
    held_out = {split: TokenSplit(TOKENS, split) for split in HELD_OUT}
    for split, tokens in held_out.items():
        check_tokenizer(model.config, tokens.index.tokenizer_sha256, f"data/tokens/{split}")
        if len(tokens):
            windows = EvaluationWindows(
                tokens, model.config.context_length, run.params.evaluate.batch_size
            )
            measured = evaluate_split(model, windows)
            metrics |= {f"{split}_{name}": value for name, value in measured.items()}
    run.write_metrics(metrics)
    samples = write_samples(model, tokenizer, held_out["val"], run.params.evaluate)
    run.output("metrics/samples.md").write_text(samples, encoding="utf-8")


if __name__ == "__main__":
    run_stage("evaluate", main)
