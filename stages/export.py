"""Export the trained model as GGUF files, and prove in llama.cpp that they are it.

    dvc repro export

The check runs on the F32 file, which is written for it if it was not asked for, and is strict:
tokens, logits and greedy text. Of the smaller types the deviation is reported.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from atlas.architectures import architecture_of
from atlas.cleaning.documents import read_documents
from atlas.errors import AtlasError
from atlas.export.check import compare, expect, refuse_disagreement
from atlas.export.gguf_file import write_gguf
from atlas.model.storage import check_tokenizer, load_model
from atlas.stage import Metric, Run, run_stage
from atlas.tokens.tokenizer import Tokenizer

MODEL = Path("models/model")


def main(run: Run) -> None:
    """models/model and models/tokenizer to models/export."""
    export = run.params.export
    folder = run.output("models/export")
    folder.mkdir()
    metrics: dict[str, Metric] = {"formats": ", ".join(export.formats) or "none"}
    if export.formats:
        metrics |= dict(write_and_check(run, folder))
    run.write_metrics(metrics)


def write_and_check(run: Run, folder: Path) -> Iterator[tuple[str, Metric]]:
    """Writes each format and gives the metrics of its check."""
    export = run.params.export
    model = load_model(MODEL, torch.device("cpu"))
    tokenizer = Tokenizer.load(Path("models/tokenizer"))
    check_tokenizer(model.config, tokenizer.sha256, "models/tokenizer")
    architecture = architecture_of(model.config.model_dump())
    if architecture is None:
        raise AtlasError("models/model: no architecture of llama.cpp fits; train again")
    yield "architecture", architecture.name
    tolerance = architecture.logit_tolerance
    texts = [document.text for document in read_documents(Path("data/clean/val"))]
    expected = expect(model, tokenizer, texts, export.check_prompts, export.check_tokens)
    for type_name in dict.fromkeys(("f32", *export.formats)):
        file = folder / f"{export.name}-{type_name}.gguf"
        write_gguf(file, MODEL, architecture, tokenizer, export.name, type_name)
        agreement = compare(file, expected, model, tolerance)
        if type_name == "f32":
            refuse_disagreement(file, agreement, tolerance)
            yield from vars(agreement).items()
        else:
            yield f"{type_name}_logit_difference", agreement.logit_difference
        if type_name in export.formats:
            yield f"{type_name}_bytes", file.stat().st_size
        else:
            file.unlink()


if __name__ == "__main__":
    run_stage("export", main)
