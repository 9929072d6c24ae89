"""Export the trained model, and prove in the runtimes that read the files that they are it.

dvc repro export
"""

from dataclasses import asdict
from pathlib import Path

from atlas.cleaning.documents import read_documents
from atlas.export.about import About, TrainingData
from atlas.export.export_model import export_model
from atlas.export.held_out import HeldOut
from atlas.export.source import Source
from atlas.pipeline.files import write_csv
from atlas.pipeline.stage import Run, run_stage
from atlas.tokens.split import TokenSplit


def main(run: Run) -> None:
    """models/model and models/tokenizer to models/export."""
    export = run.params.export
    folder = run.output_folder("models/export")
    table = run.output("metrics/export.csv")
    if not export.formats:
        write_csv(table, [{"format": "none"}])
        run.write_metrics({"formats": "none"})
        return
    data = TrainingData.read(Path("data/raw/manifest.json"))
    about = About(
        export.name,
        export.author or "",
        export.license or "",
        export.description or "",
        export.source or "",
        data,
    )
    source = Source.load(Path("models/model"), Path("models/tokenizer"), about)
    held_out = HeldOut.of(
        read_documents(Path("data/clean/val")),
        TokenSplit(Path("data/tokens"), "val"),
        source.config.context_length,
        prompts=export.check_prompts,
        tokens=export.check_tokens,
        windows=export.check_windows or 0,
    )
    exported = export_model(source, export.formats, held_out, folder)
    write_csv(table, [asdict(row) for row in exported.files])
    run.timing |= exported.speeds
    run.write_metrics(exported.metrics)


if __name__ == "__main__":
    run_stage("export", main)
