"""``atlas export``: export a model outside the pipeline."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.bundle import ModelBundle, ValidationData, encode_texts, sample_texts
from atlas.export.card import FileRow
from atlas.export.export import Exporter, export_model
from atlas.inference.backends.load import ADAPTER, CONFIG, GGUF, is_hugging_face, read_json
from atlas.params.runtime_support import export_conflicts, known_format
from atlas.pipeline.files import files_below, partial_path, put_in_place, remove
from atlas.pipeline.gguf_file import read_gguf
from atlas.tools.console import print_table

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def export_to(folder: Path, bundle: ModelBundle, formats: Sequence[str], text: Path | None) -> None:
    """Create a folder of exported files only if all succeed, and print the results.

    ``text`` is a file the model was not trained on; None checks it on its own samples.
    """
    _check_arguments(folder, bundle, formats)
    partial = partial_path(folder)
    remove(partial)
    try:
        partial.mkdir()
        with tempfile.TemporaryDirectory() as name:
            texts = _validation_texts(bundle, text)
            documents = [Document(str(number), "", each) for number, each in enumerate(texts)]
            tokens = encode_texts(texts, bundle.tokenizer, Path(name))
            context = bundle.config.context_length
            about = "validation text" if text else "text the model wrote itself"
            limits = {"prompts": 3, "greedy_tokens": 60, "max_windows": 32}
            data = ValidationData.load(documents, tokens, context, **limits, description=about)
            result = export_model(bundle, formats, data, partial, speed_in_card=True)
        put_in_place(partial, folder)
    finally:
        remove(partial)
    print_result(result, folder)


def refuse_foreign(path: Path) -> None:
    """Reject what Atlas did not train, and say what it is and what runs it."""
    kind, advice = "", f"`atlas generate --model {path}` runs it"
    values = read_json(path / CONFIG)
    if path.is_file() and path.suffix.lower() == GGUF:
        kind = f"a GGUF file ({read_gguf(path).get('general.architecture', 'no architecture')})"
        advice += f", `atlas inspect {path}` shows its contents"
    elif path.is_file():
        kind, advice = "a file", "give the folder that train wrote"
    elif (path / ADAPTER).exists():
        kind, advice = "an adapter", "merge it with its model first (merge_and_unload of peft)"
    elif is_hugging_face(path):
        names = values.get("architectures") or values.get("model_type")
        named = ", ".join(map(str, names)) if isinstance(names, list) else str(names)
        kind = f"a Hugging Face folder ({named[:80]})"
        advice += "; llama.cpp's convert_hf_to_gguf.py makes a GGUF file of it"
    elif not (path / CONFIG).exists() and (files := sorted(path.glob(f"*{GGUF}"))):
        kind = f"a folder of exported files ({files[0].name})"
        advice = f"`atlas generate --model {files[0]}` runs one of them"
    if kind:
        raise AtlasError(
            f"{path}: {kind}, not a model that Atlas trained, so it can't be exported; {advice}"
        )


def _check_arguments(folder: Path, bundle: ModelBundle, formats: Sequence[str]) -> None:
    """Reject invalid options before doing any work."""
    for name in formats:
        try:
            known_format(name)
        except ValueError as error:
            raise AtlasError(f"--to {name}: it must be {error}") from None
    for conflict in export_conflicts(bundle.config.model_dump(), formats):
        raise AtlasError(f"--to: {conflict}")
    name = bundle.metadata.name
    if not SAFE_NAME.fullmatch(name):
        raise AtlasError(f"--name {name}: use only letters, digits, '.', '_' and '-'")
    if not folder.absolute().parent.is_dir():
        raise AtlasError(f"--out {folder}: folder {folder.parent} does not exist; create it first")
    if folder.exists():
        raise AtlasError(f"--out {folder}: already exists; choose another name")


def _validation_texts(bundle: ModelBundle, path: Path | None) -> list[str]:
    if path is None:
        return sample_texts(bundle.model, bundle.tokenizer)
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
