"""Exports a model as GGUF files, which do not stay unless llama.cpp agrees with the F32 one."""

import math
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from atlas.architectures import architecture_of
from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.check.agreement import compare, expect, refuse_disagreement
from atlas.export.check.quality import measure, refuse_perplexity
from atlas.export.gguf.file import write_gguf
from atlas.export.gguf.types import matrix_types, needs_llama_cpp, quantise
from atlas.formats import K_ROW, GgufFormat, has_k_types
from atlas.model.storage import check_tokenizer, load_model
from atlas.params import ExportParams
from atlas.tokens.split import TokenSplit
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import EvaluationWindows
from atlas.training.steps.loss import mean_loss

MOST_CHARACTERS = 20_000_000  # of documents whose tokens are compared
BATCH = 16  # windows that our model reads at once
Metric = int | float | str
Exported = tuple[dict[str, Metric], dict[str, float]]
STRICT: GgufFormat = "f32"  # in which logits must be equal


def export_gguf(
    model_folder: Path,
    tokenizer: Tokenizer,
    documents: Iterable[Document],
    val: TokenSplit,
    export: ExportParams,
    folder: Path,
) -> Exported:
    """Writes a GGUF file for each format asked for.

    The F32 file is written in any case, and checked strictly: tokens, logits, greedy text and
    perplexity. Of the smaller types the tokens must be equal, and what they cost is measured.

    Args:
        model_folder: with config.json and model.safetensors.
        tokenizer: of the model.
        documents: held out; their tokens are compared, and their beginnings continued.
        val: tokens of them, over which perplexities are computed.
        export: which formats, their name, how much to check.
        folder: receives the files.

    Returns:
        The metrics of the stage, and its speeds.

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
    windows = EvaluationWindows(val, model.config.context_length, BATCH)
    batches = list(windows.spread(export.check_windows or len(windows.layout)))
    perplexity = math.exp(mean_loss(model, batches))
    metrics: dict[str, Metric] = {"architecture": architecture.name, "perplexity": perplexity}
    speeds: dict[str, float] = {}
    exact = folder / f"{export.name}-{STRICT}.gguf"
    for name in dict.fromkeys((STRICT, *export.formats)):
        file = folder / f"{export.name}-{name}.gguf"
        if needs_llama_cpp(name, model.config.d_model):
            quantise(exact, file, name)
        else:
            write_gguf(file, model_folder, architecture, tokenizer, export.name, name)
        agreement = compare(file, expected, model, tolerance)
        quality = measure(file, exact, batches)
        if name == STRICT:
            refuse_disagreement(file, agreement, tolerance)
            refuse_perplexity(file, quality, perplexity)
            metrics |= vars(agreement)
        else:
            refuse_disagreement(file, agreement)
            metrics[f"{name}_logit_difference"] = agreement.logit_difference
            metrics[f"{name}_greedy_mismatches"] = agreement.greedy_mismatches
            metrics[f"{name}_kl_divergence"] = quality.kl_divergence
            metrics[f"{name}_top_1_agreement"] = quality.top_1_agreement
            metrics[f"{name}_types"] = _describe_types(file, name)
        if name in export.formats:
            metrics[f"{name}_perplexity"] = quality.perplexity
            metrics[f"{name}_bytes"] = file.stat().st_size
            speeds[f"{name}_tokens_per_second"] = round(quality.tokens_per_second)
    if STRICT not in export.formats:
        exact.unlink()
    return metrics, speeds


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
