"""Export the trained model and check the files in the runtimes that read them.

dvc repro export
"""

from dataclasses import asdict, fields
from pathlib import Path

from atlas.cleaning.documents import read_documents
from atlas.export.bundle import ModelBundle, ModelMetadata, TrainingData, ValidationData
from atlas.export.card import FileRow
from atlas.export.export import export_model
from atlas.inference.backends.exported import record_source
from atlas.pipeline.files import write_csv
from atlas.pipeline.stage import StageRun, run_stage
from atlas.tokens.shards import TokenSplit


def main(run: StageRun) -> None:
    """Export models/model and models/tokenizer to models/export."""
    export = run.params.export
    folder = run.output_folder("models/export")
    table = run.output("metrics/export.csv")
    if not export.formats:
        columns = ",".join(field.name for field in fields(FileRow))
        table.write_text(f"{columns}\n", encoding="utf-8")  # DVC warns without its columns
        run.write_metrics({"formats": "none"})
        return
    metadata = ModelMetadata(
        export.name,
        export.author,
        export.license,
        export.description,
        export.source,
        TrainingData.read(Path("data/raw/manifest.json")),
    )
    bundle = ModelBundle.load(Path("models/model"), Path("models/tokenizer"), metadata)
    data = ValidationData.load(
        read_documents(Path("data/clean/val")),
        TokenSplit(Path("data/tokens"), "val"),
        bundle.config.sequence_length,
        prompts=export.check_prompts,
        greedy_tokens=export.check_tokens,
        max_windows=export.check_windows,
    )
    result = export_model(bundle, export.formats, data, folder)
    record_source(folder, bundle.folder)
    write_csv(table, [asdict(row) for row in result.files])
    run.timing |= result.speeds
    run.write_metrics(result.metrics)


if __name__ == "__main__":
    run_stage("export", main)
