"""Compare bits per byte of val with lm-evaluation-harness.

    pip install -e '.[harness]'
    python -m bench.harness
    python -m bench.harness http://127.0.0.1:8000    # through a server of models/model

The harness reads the exported Hugging Face folder with transformers, each document of val by
itself: adjacent windows, the last one reaching back, document ends not scored. Atlas scores the
same windows here, so both numbers must be equal. A server scores windows that are a token shorter,
because the harness asks it for one more. (metrics/evaluate.json measures the whole split
as it was tokenized, in adjacent and in sliding windows.)
"""

import dataclasses
import math
import sys
from pathlib import Path

import torch

from atlas.errors import AtlasError, one_line_errors
from atlas.evaluation.scores import score_batches, sliding_windows
from atlas.model.language_model import LanguageModel
from atlas.model.weights import load_model
from atlas.tokens.shards import TokenSplit

EXPORTS = Path("models/export")
TASKS = Path(__file__).parent / "lm_eval"
TASK = "atlas_val"
BATCH_SIZE = 16


def measure_atlas(model: LanguageModel, length: int) -> float:
    """Bits per byte of val in windows of ``length`` tokens, scored by Atlas."""
    tokens = TokenSplit(Path("data/tokens"), "val")
    tokens.index = dataclasses.replace(tokens.index, windows="padded")  # one document at a time
    scores = score_batches(model, sliding_windows(tokens, length, length, BATCH_SIZE))
    text = scores.targets != tokens.index.eos
    return float(scores.losses[text].sum(dtype=float)) / math.log(2) / tokens.bytes


def measure_harness(server: str, length: int) -> dict[str, float]:
    """Metrics of the harness by name, in transformers or through a server."""
    exported = next(EXPORTS.glob("*-hugging_face"), None)
    if exported is None:
        raise AtlasError(
            f"{EXPORTS} has no Hugging Face folder; add hugging_face to export.formats and run "
            "`dvc repro export`"
        )
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    model = "hf"
    options: dict[str, str | int] = {"pretrained": str(exported), "dtype": "float32"}
    if server:
        model, url = "local-completions", f"{server}/v1/completions"
        options = {"model": "atlas", "base_url": url, "tokenizer": str(exported)}
        options["max_length"] = length + 2  # it sets two tokens aside
    results = simple_evaluate(
        model=model,
        model_args=options,
        tasks=[TASK],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        device="cpu",
        batch_size=BATCH_SIZE,
    )["results"][TASK]
    return {key.split(",")[0]: value for key, value in results.items() if isinstance(value, float)}


def main() -> None:
    """Print both results and their difference."""
    server = "".join(sys.argv[1:])
    model = load_model(Path("models/model"), torch.device("cpu"))
    length = model.config.context_length - bool(server)
    harness = measure_harness(server, length)
    atlas = measure_atlas(model, length)
    print(f"lm-evaluation-harness: {harness['bits_per_byte']:.6f} bits per byte", end=", ")
    print(f"word perplexity {harness['word_perplexity']:.2f}")
    print(f"Atlas:                 {atlas:.6f} bits per byte")
    print(f"difference:            {abs(atlas - harness['bits_per_byte']):.2e}")


if __name__ == "__main__":
    with one_line_errors():
        main()
