"""Exports a model as GGUF files, which do not stay unless llama.cpp agrees with the F32 one."""

import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from atlas.architectures import architecture_of
from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.check.agreement import compare, expect, refuse_disagreement
from atlas.export.gguf.file import write_gguf
from atlas.export.gguf.types import matrix_types, needs_llama_cpp, quantise
from atlas.formats import K_ROW, GgufFormat, has_k_types
from atlas.model.storage import check_tokenizer, load_model
from atlas.params import ExportParams
from atlas.tokens.tokenizer import Tokenizer

MOST_CHARACTERS = 20_000_000  # of documents whose tokens are compared
STRICT: GgufFormat = "f32"  # in which logits must be equal


def export_gguf(
    model_folder: Path,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    export: ExportParams,
    folder: Path,
) -> dict[str, int | float | str]:
    """Writes a GGUF file for each format asked for.

    The F32 file is written in any case, and checked strictly: tokens, logits and greedy text.
    Of the smaller types the tokens must be equal, and the deviation is measured.

    Args:
        model_folder: with config.json and model.safetensors.
        tokenizer: of the model.
        documents: held out; their tokens are compared, and their beginnings continued.
        export: which formats, their name, how much to check.
        folder: receives the files.

    Returns:
        The metrics of the stage.

    Raises:
        AtlasError: llama.cpp does not agree, or cannot run such a model at all.
    """
    model = load_model(model_folder, torch.device("cpu"))
    check_tokenizer(model.config, tokenizer.sha256, "models/tokenizer")
    architecture = architecture_of(model.config.model_dump())
    if architecture is None:
        raise AtlasError(f"{model_folder}: llama.cpp has no architecture for it; train another")
    tolerance = architecture.logit_tolerance
    texts = _texts(documents, MOST_CHARACTERS)
    expected = expect(model, tokenizer, texts, export.check_prompts, export.check_tokens)
    metrics: dict[str, int | float | str] = {"architecture": architecture.name}
    exact = folder / f"{export.name}-{STRICT}.gguf"
    for name in dict.fromkeys((STRICT, *export.formats)):
        file = folder / f"{export.name}-{name}.gguf"
        if needs_llama_cpp(name, model.config.d_model):
            quantise(exact, file, name)
        else:
            write_gguf(file, model_folder, architecture, tokenizer, export.name, name)
        agreement = compare(file, expected, model, tolerance)
        if name == STRICT:
            refuse_disagreement(file, agreement, tolerance)
            metrics |= vars(agreement)
        else:
            refuse_disagreement(file, agreement)
            metrics[f"{name}_logit_difference"] = agreement.logit_difference
            metrics[f"{name}_greedy_mismatches"] = agreement.greedy_mismatches
            metrics[f"{name}_types"] = _describe_types(file, name)
        if name in export.formats:
            metrics[f"{name}_bytes"] = file.stat().st_size
    if STRICT not in export.formats:
        exact.unlink()
    return metrics


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


def _texts(documents: Iterable[Document], most_characters: int) -> list[str]:
    """The texts of the first documents, the last one cut to end at so many characters."""
    texts = []
    for document in documents:
        texts.append(document.text[:most_characters])
        most_characters -= len(texts[-1])
        if not most_characters:
            break
    return texts
