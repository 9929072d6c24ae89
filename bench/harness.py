"""Bits per byte of val, by lm-evaluation-harness and by Atlas.

    pip install -e '.[harness]'
    python -m bench.harness

The harness reads the exported Hugging Face folder with transformers, each document of val by
itself: windows side by side, the last one reaching back, the end of the text not counted. Our own
windows are told to do the same, so both numbers must be equal. (metrics/evaluate.json has two
others: over the whole split as it was tokenized, side by side and sliding.)
"""

import dataclasses
import math
from pathlib import Path

import torch

from atlas.errors import AtlasError, one_line_errors
from atlas.evaluation.scores import score
from atlas.evaluation.sliding import sliding_windows
from atlas.model.storage import load_model
from atlas.tokens.shards import TokenSplit

EXPORTS = Path("models/export")
TASKS = Path(__file__).parent / "lm_eval"
TASK = "atlas_val"
AT_ONCE = 16


def ours() -> float:
    """Bits per byte of val by the model of the pipeline."""
    model = load_model(Path("models/model"), torch.device("cpu"))
    tokens = TokenSplit(Path("data/tokens"), "val")
    tokens.index = dataclasses.replace(tokens.index, windows="padded")  # documents by themselves
    length = model.config.context_length
    scores = score(model, sliding_windows(tokens, length, length, AT_ONCE))
    text = scores.targets != tokens.index.eos
    return float(scores.losses[text].sum(dtype=float)) / math.log(2) / tokens.bytes


def theirs() -> dict[str, float]:
    """What the harness measures, by name."""
    exported = next(EXPORTS.glob("*-hugging_face"), None)
    if exported is None:
        raise AtlasError(
            f"{EXPORTS}: no Hugging Face folder in it; `dvc repro` with hugging_face among "
            "export.formats makes one"
        )
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    found = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(exported), "dtype": "float32"},
        tasks=[TASK],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        device="cpu",
        batch_size=AT_ONCE,
    )["results"][TASK]
    return {key.split(",")[0]: value for key, value in found.items() if isinstance(value, float)}


def main() -> None:
    """Prints both."""
    measured = theirs()
    own = ours()
    print(f"lm-evaluation-harness: {measured['bits_per_byte']:.6f} bits per byte", end=", ")
    print(f"word perplexity {measured['word_perplexity']:.2f}")
    print(f"Atlas:                 {own:.6f} bits per byte")
    print(f"difference:            {abs(own - measured['bits_per_byte']):.2e}")


if __name__ == "__main__":
    with one_line_errors():
        main()
