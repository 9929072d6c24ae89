"""Export the trained model as GGUF files, and prove in llama.cpp that they are it.

dvc repro export
"""

from pathlib import Path

from atlas.cleaning.documents import read_documents
from atlas.export.export_gguf import export_gguf
from atlas.stage import Metric, Run, run_stage
from atlas.tokens.split import TokenSplit
from atlas.tokens.tokenizer import Tokenizer


def main(run: Run) -> None:
    """models/model and models/tokenizer to models/export."""
    export = run.params.export
    folder = run.output("models/export")
    folder.mkdir()
    metrics: dict[str, Metric] = {"formats": ", ".join(export.formats) or "none"}
    if export.formats:
        tokenizer = Tokenizer.load(Path("models/tokenizer"))
        held_out = read_documents(Path("data/clean/val"))
        val = TokenSplit(Path("data/tokens"), "val")
        exported, speeds = export_gguf(
            Path("models/model"), tokenizer, held_out, val, export, folder
        )
        metrics |= exported
        run.timing |= speeds
    run.write_metrics(metrics)


if __name__ == "__main__":
    run_stage("export", main)
