"""Exports a model as GGUF files, which do not stay unless llama.cpp agrees with the F32 one."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from atlas.errors import AtlasError
from atlas.export.check.agreement import Expected, compare, refuse_disagreement
from atlas.export.check.quality import measure, refuse_perplexity
from atlas.export.exported import Exported, FileRow
from atlas.export.gguf.file import write_gguf
from atlas.export.gguf.types import matrix_types, needs_llama_cpp, quantise
from atlas.export.source import Source
from atlas.params.runtime_support import K_ROW, GgufFormat, architecture_of, has_k_types
from atlas.tokens.windows import Batch

STRICT: GgufFormat = "f32"  # in which logits must be equal


def export_gguf(
    source: Source,
    formats: Sequence[GgufFormat],
    expected: Expected,
    batches: Sequence[Batch[Any]],
    folder: Path,
    exported: Exported,
) -> None:
    """Writes a GGUF file for each format asked for.

    The F32 file is written in any case, and checked strictly: tokens, logits, greedy text and
    perplexity. Of the smaller types the tokens must be equal, and what they cost is measured.

    Args:
        source: the model.
        formats: of the files that stay.
        expected: what llama.cpp should say.
        batches: windows of held-out text, over which perplexities are computed.
        folder: receives the files.
        exported: has the perplexity of the model itself in its first row; learns what is found.

    Raises:
        AtlasError: llama.cpp does not agree, or cannot run such a model at all.
    """
    architecture = architecture_of(source.config.model_dump())
    if architecture is None:
        raise AtlasError(f"{source.folder}: llama.cpp has no architecture for it; train another")
    tolerance = architecture.logit_tolerance
    metrics = exported.metrics
    metrics["architecture"] = architecture.name
    exact = folder / f"{source.about.name}-{STRICT}.gguf"
    for name in dict.fromkeys((STRICT, *formats)):
        file = folder / f"{source.about.name}-{name}.gguf"
        if needs_llama_cpp(name, source.config.d_model):
            quantise(exact, file, name)
        else:
            write_gguf(file, source, architecture, name)
        agreement = compare(file, expected, source.model, tolerance)
        quality = measure(file, exact, batches)
        types = _describe_types(file, name)
        if name == STRICT:
            refuse_disagreement(file, agreement, tolerance)
            refuse_perplexity(file, quality, exported.files[0].perplexity)
            metrics |= vars(agreement)
        else:
            refuse_disagreement(file, agreement)
            metrics[f"{name}_logit_difference"] = agreement.logit_difference
            metrics[f"{name}_greedy_mismatches"] = agreement.greedy_mismatches
            metrics[f"{name}_kl_divergence"] = quality.kl_divergence
            metrics[f"{name}_top_1_agreement"] = quality.top_1_agreement
            metrics[f"{name}_types"] = types
        if name in formats:
            size = file.stat().st_size
            metrics[f"{name}_perplexity"] = quality.perplexity
            metrics[f"{name}_bytes"] = size
            exported.speeds[f"{name}_tokens_per_second"] = round(quality.tokens_per_second)
            parameters = source.model.parameter_count()
            exported.files.append(FileRow.of(file.name, name, size, parameters, quality, types))
    if STRICT not in formats:
        exact.unlink()


def _describe_types(file: Path, name: GgufFormat) -> str:
    """How many matrices are in which type; says so where they are not in those asked for."""
    types = matrix_types(file)
    replaced = sum(count for kind, count in types.items() if not has_k_types(kind))
    described = ", ".join(f"{count} {kind}" for kind, count in types.most_common())
    if has_k_types(name) and replaced:
        print(
            f"note: {file.name}: the rows of {replaced} of {types.total()} matrices are no "
            f"multiple of {K_ROW}, as K types want; llama.cpp made them {described}",
            file=sys.stderr,
        )
    return described
