"""Exports a model as GGUF files, which do not stay unless llama.cpp agrees with the F32 one."""

from collections.abc import Iterable
from pathlib import Path

import torch

from atlas.architectures import architecture_of
from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.check.agreement import compare, expect, refuse_disagreement
from atlas.export.gguf.file import write_gguf
from atlas.model.storage import check_tokenizer, load_model
from atlas.params import ExportParams
from atlas.tokens.tokenizer import Tokenizer

MOST_CHARACTERS = 20_000_000  # of documents whose tokens are compared
STRICT = "f32"  # the type in which logits must be equal


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
    for type_name in dict.fromkeys((STRICT, *export.formats)):
        file = folder / f"{export.name}-{type_name}.gguf"
        write_gguf(file, model_folder, architecture, tokenizer, export.name, type_name)
        agreement = compare(file, expected, model, tolerance)
        if type_name == STRICT:
            refuse_disagreement(file, agreement, tolerance)
            metrics |= vars(agreement)
        else:
            refuse_disagreement(file, agreement)
            metrics[f"{type_name}_logit_difference"] = agreement.logit_difference
            metrics[f"{type_name}_greedy_mismatches"] = agreement.greedy_mismatches
        if type_name in export.formats:
            metrics[f"{type_name}_bytes"] = file.stat().st_size
        else:
            file.unlink()
    return metrics


def _texts(documents: Iterable[Document], most_characters: int) -> list[str]:
    """The texts of the first documents, the last one cut to end at so many characters."""
    texts = []
    for document in documents:
        texts.append(document.text[:most_characters])
        most_characters -= len(texts[-1])
        if not most_characters:
            break
    return texts
