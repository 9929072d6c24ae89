"""Exports a model in the formats asked for; none stays unless its runtime agrees with PyTorch."""

import math
from collections.abc import Sequence
from pathlib import Path

from atlas.errors import AtlasError
from atlas.export.card.card import write_card
from atlas.export.check.agreement import (
    ONNXRUNTIME,
    TORCH_EXPORT,
    TRANSFORMERS,
    Expected,
    compare,
    expect,
    refuse_disagreement,
)
from atlas.export.check.quality import Quality
from atlas.export.exported import Exported, FileRow
from atlas.export.gguf.files import export_gguf
from atlas.export.held_out import HeldOut
from atlas.export.hugging_face.folder import write_hugging_face
from atlas.export.programs.write import write_programs
from atlas.export.runtime_process import RuntimeModule
from atlas.export.source import Source
from atlas.model.loss import mean_loss
from atlas.model.storage import WEIGHTS
from atlas.params.runtime_support import HUGGING_FACE, ONNX, TORCH, class_of, gguf_formats

TOLERANCE = 1e-4  # of logits where the arithmetic is PyTorch's own, or as good
PROGRAMS = {ONNX: ONNXRUNTIME, TORCH: TORCH_EXPORT}
SUFFIXES = {ONNX: ".onnx", TORCH: ".pt2"}


def export_model(
    source: Source, formats: Sequence[str], held_out: HeldOut, folder: Path
) -> Exported:
    """Writes a file or folder for each format, a model card and what Ollama needs.

    Args:
        source: the model.
        formats: as in ``atlas.params.runtime_support``.
        held_out: text to prove it by.
        folder: receives the files.

    Raises:
        AtlasError: a runtime does not agree, or cannot run such a model at all.
    """
    model = source.model
    expected = expect(model, source.tokenizer, held_out.texts, held_out.prompts, held_out.tokens)
    perplexity = math.exp(mean_loss(model, held_out.batches))
    exported = Exported({"formats": ", ".join(formats), "perplexity": perplexity})
    exported.files.append(_itself(source, perplexity))
    if gguf_formats(formats):
        names = gguf_formats(formats)
        export_gguf(source, names, expected, held_out.batches, folder, exported)
    if HUGGING_FACE in formats:
        _export_hugging_face(source, expected, folder, exported)
    if programs := [name for name in formats if name in PROGRAMS]:
        _export_programs(source, programs, expected, folder, exported)
    tokens = sum(batch.predicted() for batch in held_out.batches)
    over = f"{tokens:,} tokens of {held_out.described}"
    write_card(source, expected, exported, formats, over, folder)
    return exported


def _itself(source: Source, perplexity: float) -> FileRow:
    size = (source.folder / WEIGHTS).stat().st_size
    exact = Quality(perplexity, 0.0, 1.0, 0.0)
    return FileRow.of(
        "the model in PyTorch", "pytorch", size, source.model.parameter_count(), exact, "f32"
    )


def _export_hugging_face(
    source: Source, expected: Expected, folder: Path, exported: Exported
) -> None:
    kind = class_of(source.config.model_dump())
    if kind is None:
        raise AtlasError(f"{source.folder}: transformers has no class for it; train another")
    target = folder / f"{source.about.name}-{HUGGING_FACE}"
    write_hugging_face(target, source, kind)
    exported.metrics["hugging_face_class"] = kind.name
    _prove(target, HUGGING_FACE, TRANSFORMERS, source, expected, exported)


def _export_programs(
    source: Source,
    names: Sequence[str],
    expected: Expected,
    folder: Path,
    exported: Exported,
) -> None:
    if source.config.kind != "decoder":
        raise AtlasError(f"{source.folder}: {names[0]} holds decoders, and it is none")
    targets = {name: folder / f"{source.about.name}{SUFFIXES[name]}" for name in names}
    write_programs(source.folder, list(targets.values()))
    for name, target in targets.items():
        _prove(target, name, PROGRAMS[name], source, expected, exported)


def _prove(
    target: Path,
    name: str,
    runtime: RuntimeModule,
    source: Source,
    expected: Expected,
    exported: Exported,
) -> None:
    agreement = compare(target, expected, source.model, TOLERANCE, runtime)
    refuse_disagreement(target, agreement, TOLERANCE, runtime)
    if agreement.texts:
        exported.metrics[f"{name}_token_mismatches"] = agreement.token_mismatches
    exported.metrics[f"{name}_logit_difference"] = agreement.logit_difference
    exported.metrics[f"{name}_greedy_mismatches"] = agreement.greedy_mismatches
