"""Export a model in several formats and check each file in the runtime that reads it.

A file is kept only if its runtime agrees with PyTorch.
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from atlas.errors import AtlasError
from atlas.export.bundle import ModelBundle, ValidationData
from atlas.export.card import FileRow, write_card
from atlas.export.check.agreement import (
    ONNXRUNTIME,
    TORCH_EXPORT,
    TRANSFORMERS,
    Quality,
    check_agreement,
    check_perplexity,
    compare,
    expect,
    measure_quality,
)
from atlas.export.check.runtimes import RuntimeProcess
from atlas.export.gguf.adapter import export_adapter
from atlas.export.gguf.quantize import matrix_types, needs_llama_cpp, quantize
from atlas.export.gguf.writer import write_gguf
from atlas.export.hugging_face import write_hugging_face
from atlas.export.programs import write_programs
from atlas.model.loss import mean_loss
from atlas.model.weights import WEIGHTS
from atlas.params.runtime_support import (
    ADAPTER,
    GGUF,
    HUGGING_FACE,
    K_BLOCK_SIZE,
    ONNX,
    TORCH,
    Architecture,
    GgufFormat,
    HuggingFaceClass,
    architecture_of,
    class_of,
    export_conflicts,
    gguf_formats,
    has_k_types,
)
from atlas.tokens.byte_level import ByteLevelTokenizer

TOLERANCE = 1e-4  # of logits with a deviation of 1, in runtimes that are as exact as PyTorch
EXACT: GgufFormat = "f32"  # the GGUF format whose logits must agree
PROGRAMS = {ONNX: (".onnx", ONNXRUNTIME), TORCH: (".pt2", TORCH_EXPORT)}


def export_model(
    bundle: ModelBundle,
    formats: Sequence[str],
    data: ValidationData,
    folder: Path,
    *,
    speed_in_card: bool = False,
) -> "Exporter":
    """Write a file or folder for each format, and a model card; return the results.

    Formats are named as in ``atlas.params.runtime_support``. The card of the stage has no speeds:
    they differ from run to run, and equal runs write equal files.
    """
    options = bundle.config.model_dump()
    for conflict in export_conflicts(options, formats):
        raise AtlasError(f"{bundle.folder}: {conflict}")
    exporter = Exporter(bundle, formats, data, folder)
    architecture = architecture_of(options)
    if architecture and any(name.startswith(GGUF) for name in formats):
        exporter.export_gguf(architecture)
    pre = bundle.tokenizer.pre.name if isinstance(bundle.tokenizer, ByteLevelTokenizer) else None
    if HUGGING_FACE in formats and (kind := class_of(options, pre)):
        exporter.export_hugging_face(kind)
    exporter.export_programs()
    write_card(
        bundle,
        formats=formats,
        files=exporter.files,
        metrics=exporter.metrics,
        speeds=exporter.speeds if speed_in_card else {},
        prompt=exporter.expected.prompts[0][0],
        perplexity_data=data.description,
        folder=folder,
    )
    return exporter


class Exporter:
    """Exports one model, format by format, and collects the results."""

    def __init__(
        self, bundle: ModelBundle, formats: Sequence[str], data: ValidationData, folder: Path
    ) -> None:
        self._bundle, self._formats, self._data, self._folder = bundle, formats, data, folder
        self._model = bundle.model
        self.expected = expect(
            self._model, bundle.tokenizer, data.texts, data.prompts, data.greedy_tokens
        )
        perplexity = math.exp(mean_loss(self._model, data.batches))
        self.metrics: dict[str, int | float | str] = {"formats": ", ".join(formats)}
        self.metrics["perplexity"] = perplexity
        self.metrics["logit_deviation"] = self.expected.logit_deviation
        self.speeds: dict[str, float] = {}  # in llama.cpp, tokens per second
        self.files: list[FileRow] = []  # the PyTorch model, then each GGUF file that is kept
        size = (bundle.folder / WEIGHTS).stat().st_size
        exact = Quality(perplexity, kl_divergence=0.0, top_1_agreement=1.0, speed={})
        self._add_row("the model in PyTorch", "pytorch", size, exact, "f32")

    def export_gguf(self, architecture: Architecture) -> None:
        """Write the GGUF files.

        F32 is always written and checked strictly: tokens, logits, greedy text and perplexity. For
        smaller types, only tokens must be equal; their loss of quality against F32 is measured.
        """
        self.metrics["architecture"] = architecture.name
        formats = gguf_formats(self._formats)
        exact = self._path(f"-{EXACT}.gguf")
        for name in dict.fromkeys((EXACT, *formats)):
            file = self._path(f"-{name}.gguf")
            if needs_llama_cpp(name, self._bundle.config.d_model):
                quantize(exact, file, name)
            else:
                write_gguf(file, self._bundle, architecture, name)
            tolerance = architecture.logit_tolerance * self.expected.error_scale
            self._check_gguf(file, name, tolerance, keep=name in formats)
        if ADAPTER in self._formats:
            self._export_adapter(architecture, exact)
        if EXACT not in formats:
            exact.unlink()

    def _export_adapter(self, architecture: Architecture, exact: Path) -> None:
        """Write the LoRA adapter; it is checked on the model that training started from."""
        file = self._path("-adapter.gguf")
        rank, difference = export_adapter(file, self._bundle, architecture, exact)
        self.metrics["adapter_rank"] = rank
        self.metrics["adapter_bytes"] = file.stat().st_size
        self.metrics["adapter_weight_difference"] = difference

    def _path(self, ending: str) -> Path:
        return self._folder / f"{self._bundle.metadata.name}{ending}"

    def _check_gguf(self, file: Path, name: GgufFormat, tolerance: float, *, keep: bool) -> None:
        """Check a GGUF file and add its metrics; if it is kept, also its row."""
        agreement = compare(file, self.expected, self._model, tolerance)
        quality = measure_quality(file, self._path(f"-{EXACT}.gguf"), self._data.batches)
        types = _describe_types(file, name)
        metrics = self.metrics
        if name == EXACT:
            check_agreement(file, agreement, tolerance)
            pytorch = self.files[0].perplexity
            check_perplexity(file, quality, pytorch, self.expected.error_scale)
            metrics |= vars(agreement)
        else:
            check_agreement(file, agreement)
            metrics[f"{name}_logit_difference"] = agreement.logit_difference
            metrics[f"{name}_greedy_mismatches"] = agreement.greedy_mismatches
            metrics[f"{name}_kl_divergence"] = quality.kl_divergence
            metrics[f"{name}_top_1_agreement"] = quality.top_1_agreement
            metrics[f"{name}_types"] = types
        if keep:
            size = file.stat().st_size
            metrics[f"{name}_perplexity"] = quality.perplexity
            metrics[f"{name}_bytes"] = size
            for part, speed in quality.speed.items():
                self.speeds[f"{name}_{part}_tokens_per_second"] = round(speed)
            self._add_row(file.name, name, size, quality, types)

    def _add_row(self, file: str, name: str, size: int, quality: Quality, types: str) -> None:
        bits = round(8 * size / self._model.parameter_count(), 2)
        measured = (quality.perplexity, quality.kl_divergence, quality.top_1_agreement)
        self.files.append(FileRow(file, name, size, bits, *measured, types))

    def export_hugging_face(self, kind: HuggingFaceClass) -> None:
        """Write a folder for transformers."""
        target = self._path(f"-{HUGGING_FACE}")
        write_hugging_face(target, self._bundle, kind)
        self.metrics["hugging_face_class"] = kind.name
        self._check(target, HUGGING_FACE, TRANSFORMERS)

    def export_programs(self) -> None:
        """Write the ONNX file and the program of torch.export, which share one trace."""
        names = [name for name in PROGRAMS if name in self._formats]
        targets = [self._path(PROGRAMS[name][0]) for name in names]
        if targets:
            write_programs(self._bundle.folder, targets)
        for name, target in zip(names, targets, strict=True):
            self._check(target, name, PROGRAMS[name][1])

    def _check(self, target: Path, name: str, runtime: RuntimeProcess) -> None:
        tolerance = TOLERANCE * self.expected.error_scale
        agreement = compare(target, self.expected, self._model, tolerance, runtime)
        check_agreement(target, agreement, tolerance, runtime)
        metrics = self.metrics
        if runtime.tokenizes:
            metrics[f"{name}_token_mismatches"] = agreement.token_mismatches
        metrics[f"{name}_logit_difference"] = agreement.logit_difference
        metrics[f"{name}_greedy_mismatches"] = agreement.greedy_mismatches


def _describe_types(file: Path, name: GgufFormat) -> str:
    """Count the matrices by type; warn if llama.cpp replaced K types."""
    types = matrix_types(file)
    replaced = sum(count for kind, count in types.items() if not has_k_types(kind))
    description = ", ".join(f"{count} {kind}" for kind, count in types.most_common())
    if has_k_types(name) and replaced:
        logging.getLogger(__name__).warning(
            f"{file.name}: K types need rows that are a multiple of {K_BLOCK_SIZE}; {replaced} of "
            f"{types.total()} matrices have other rows, so llama.cpp chose {description}"
        )
    return description
