"""Compare bits per byte of val with lm-evaluation-harness.

    pip install -e '.[harness]'
    python -m bench.harness

The harness reads the exported Hugging Face folder with transformers, each document of val by
itself: adjacent windows, the last one reaching back, document ends not scored. Atlas scores the
same windows here, so both numbers must be equal. (metrics/evaluate.json measures the whole split
as it was tokenized, in adjacent and in sliding windows.)
"""

import dataclasses
import math
from pathlib import Path

import torch

from atlas.errors import AtlasError, one_line_errors
from atlas.evaluation.scores import score_batches, sliding_windows
from atlas.model.weights import load_model
from atlas.tokens.shards import TokenSplit

EXPORTS = Path("models/export")
TASKS = Path(__file__).parent / "lm_eval"
TASK = "atlas_val"
BATCH_SIZE = 16


def measure_atlas() -> float:
    """Bits per byte of val, scored by Atlas."""
    model = load_model(Path("models/model"), torch.device("cpu"))
    tokens = TokenSplit(Path("data/tokens"), "val")
    tokens.index = dataclasses.replace(tokens.index, windows="padded")  # one document at a time
    length = model.config.context_length
    scores = score_batches(model, sliding_windows(tokens, length, length, BATCH_SIZE))
    text = scores.targets != tokens.index.eos
    return float(scores.losses[text].sum(dtype=float)) / math.log(2) / tokens.bytes


def measure_harness() -> dict[str, float]:
    """Metrics of the harness by name."""
    exported = next(EXPORTS.glob("*-hugging_face"), None)
    if exported is None:
        raise AtlasError(
            f"{EXPORTS} has no Hugging Face folder; add hugging_face to export.formats and run "
            "`dvc repro export`"
        )
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    results = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(exported), "dtype": "float32"},
        tasks=[TASK],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        device="cpu",
        batch_size=BATCH_SIZE,
    )["results"][TASK]
    return {key.split(",")[0]: value for key, value in results.items() if isinstance(value, float)}


def main() -> None:
    """Print both results and their difference."""
    harness = measure_harness()
    atlas = measure_atlas()
    print(f"lm-evaluation-harness: {harness['bits_per_byte']:.6f} bits per byte", end=", ")
    print(f"word perplexity {harness['word_perplexity']:.2f}")
    print(f"Atlas:                 {atlas:.6f} bits per byte")
    print(f"difference:            {abs(atlas - harness['bits_per_byte']):.2e}")


if __name__ == "__main__":
    with one_line_errors():
        main()
