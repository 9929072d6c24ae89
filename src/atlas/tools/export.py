"""``atlas export``: export a model outside the pipeline."""

import dataclasses
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.bundle import (
    ModelBundle,
    ModelMetadata,
    ValidationData,
    encode_texts,
    sample_texts,
)
from atlas.export.card import FileRow
from atlas.export.export import Exporter, export_model
from atlas.inference.backends.exported import tokenizer_of
from atlas.params.runtime_support import ADAPTER, Options, export_conflicts, known_format
from atlas.pipeline.files import files_below, partial_path, put_in_place, remove
from atlas.tools.console import print_table
from atlas.tools.importing import TEXTS, TOKENIZER, file_name, write_base
from atlas.tools.sources import ORIGIN, open_source

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def export_source(
    path: Path,
    out: Path | None,
    formats: Sequence[str],
    text: Path | None,
    tokenizer: Path | None,
    values: Mapping[str, str],
) -> None:
    """Export a model that Atlas wrote, or one from elsewhere after importing it.

    ``values`` are fields of ``ModelMetadata``; those of the source replace empty ones.
    """
    source = open_source(path, tokenizer)
    known: dict[str, Any] = {"author": source.author, "license": source.licence}
    known |= {"source": source.url}
    known |= {key: value for key, value in values.items() if value}
    name = known.pop("name", None) or file_name(source.name)
    metadata = dataclasses.replace(ModelMetadata(name), **known)
    target = out or Path(f"{metadata.name}-export")
    _check_arguments(target, source.weights.params.model_dump(), formats, metadata.name)
    if source.kind == "atlas":
        bundle = ModelBundle.load(path, tokenizer or tokenizer_of(path), metadata)
        export_to(target, bundle, formats, text, TEXTS if (path / ORIGIN).is_file() else ())
        return
    if ADAPTER in formats:
        raise AtlasError(
            f"--to {ADAPTER}: {path} has no adapter that Atlas trained; export the whole model "
            "(gguf:q8_0)"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = write_base(source, folder, source.weights.params.context_length)
        print_table(("", ""), result.rows)
        bundle = ModelBundle.load(folder, folder / TOKENIZER, metadata)
        export_to(target, bundle, formats, text, TEXTS)


def export_to(
    folder: Path,
    bundle: ModelBundle,
    formats: Sequence[str],
    text: Path | None,
    short_texts: Sequence[str] = (),
) -> None:
    """Create a folder of exported files only if all succeed, and print the results.

    ``text`` is a file the model was not trained on; None checks it on ``short_texts``, or on its
    own samples if there are none.
    """
    _check_arguments(folder, bundle.config.model_dump(), formats, bundle.metadata.name)
    partial = partial_path(folder)
    remove(partial)
    try:
        partial.mkdir()
        with tempfile.TemporaryDirectory() as name:
            texts = _validation_texts(bundle, text, short_texts)
            documents = [Document(str(number), "", each) for number, each in enumerate(texts)]
            tokens = encode_texts(texts, bundle.tokenizer, Path(name))
            context = bundle.config.sequence_length
            about = "validation text" if text else "text the model wrote itself"
            about = "short texts of Atlas" if short_texts and not text else about
            limits = {"prompts": 3, "greedy_tokens": 60, "max_windows": 32}
            data = ValidationData.load(documents, tokens, context, **limits, description=about)
            result = export_model(bundle, formats, data, partial, speed_in_card=True)
        put_in_place(partial, folder)
    finally:
        remove(partial)
    print_result(result, folder)


def _check_arguments(folder: Path, options: Options, formats: Sequence[str], name: str) -> None:
    """Reject invalid options before doing any work."""
    for each in formats:
        try:
            known_format(each)
        except ValueError as error:
            raise AtlasError(f"--to {each}: it must be {error}") from None
    for conflict in export_conflicts(options, formats):
        raise AtlasError(f"--to: {conflict}")
    if not SAFE_NAME.fullmatch(name):
        raise AtlasError(f"--name {name}: use only letters, digits, '.', '_' and '-'")
    if not folder.absolute().parent.is_dir():
        raise AtlasError(f"--out {folder}: folder {folder.parent} does not exist; create it first")
    if folder.exists():
        raise AtlasError(f"--out {folder}: already exists; choose another name")


def _validation_texts(
    bundle: ModelBundle, path: Path | None, short_texts: Sequence[str]
) -> list[str]:
    if path is None:
        return list(short_texts) or sample_texts(bundle.model, bundle.tokenizer)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise AtlasError(f"--text {path}: not UTF-8 ({error.reason} at {error.start})") from None
    if not bundle.tokenizer.encode(text):
        raise AtlasError(f"--text {path}: the file contains no text")
    return [text]


def print_result(result: Exporter, folder: Path) -> None:
    """Print a row per file, the logit differences and the paths; speeds are tokens per second."""
    names = "file, bytes, perplexity, KL divergence, same top token, matrices"
    titles = (*names.split(", "), "prompt tok/s", "generated tok/s")

    def speed(row: FileRow, part: str) -> str:
        value = result.speeds.get(f"{row.format}_{part}_tokens_per_second")
        return f"{value:,}" if value else ""

    rows = [
        (
            row.file,
            f"{row.bytes:,}",
            f"{row.perplexity:.4f}",
            f"{row.kl_divergence:.2g}",
            f"{100 * row.top_1_agreement:.2f} %",
            row.types,
            speed(row, "prompt"),
            speed(row, "generation"),
        )
        for row in result.files
    ]
    print_table(titles, rows, right=(*range(1, 5), 6, 7))
    for key, value in result.metrics.items():
        if key.endswith("logit_difference"):
            print(f"{key.replace('_', ' ')}: {value:.2g}")
    print(*files_below(folder), sep="\n")
