"""``atlas export``: a model outside the pipeline."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from atlas.cleaning.documents import Document
from atlas.errors import AtlasError
from atlas.export.export_model import export_model
from atlas.export.exported import Exported
from atlas.export.held_out import HeldOut, encode_texts, own_samples
from atlas.export.source import Source
from atlas.params.rules import export_conflicts
from atlas.params.runtime_support import known_format
from atlas.pipeline.files import files_below, partial_path, put_in_place, remove
from atlas.tools.console import plain_console

PROMPTS, TOKENS, WINDOWS = 3, 60, 32  # that the check takes
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def export_to(folder: Path, source: Source, formats: Sequence[str], text: Path | None) -> None:
    """Fills a new folder, whole or not at all, and prints what was found.

    Args:
        folder: to be made.
        source: the model.
        formats: as in ``atlas.params.runtime_support``.
        text: a file that the model was not trained on; None for what it writes itself.

    Raises:
        AtlasError: the model does not fit a format, or a runtime does not agree.
    """
    _refuse(folder, source, formats)
    partial = partial_path(folder)
    remove(partial)
    try:
        partial.mkdir()
        with tempfile.TemporaryDirectory() as name:
            texts = _texts(source, text)
            held_out = HeldOut.of(
                [Document(str(number), "", each) for number, each in enumerate(texts)],
                encode_texts(texts, source.tokenizer, Path(name)),
                source.config.context_length,
                prompts=PROMPTS,
                tokens=TOKENS,
                windows=WINDOWS,
                described="held-out text" if text else "text that it wrote itself",
            )
            exported = export_model(source, formats, held_out, partial)
        put_in_place(partial, folder)
    finally:
        remove(partial)
    print_exported(exported, folder)


def _refuse(folder: Path, source: Source, formats: Sequence[str]) -> None:
    """Stops before any work where it would be in vain."""
    for name in formats:
        try:
            known_format(name)
        except ValueError as error:
            raise AtlasError(f"--to {name}: it must be {error}") from None
    for problem in export_conflicts(source.config, formats):
        raise AtlasError(f"--to: {problem}")
    if not SAFE_NAME.fullmatch(source.about.name):
        raise AtlasError(f"--name {source.about.name}: use letters, digits, '.', '_' and '-' alone")
    if not folder.absolute().parent.is_dir():
        raise AtlasError(f"--out {folder}: there is no folder {folder.parent}; make it first")
    if folder.exists():
        raise AtlasError(f"--out {folder}: it is there already; name a folder that is not")


def _texts(source: Source, text: Path | None) -> list[str]:
    if text is None:
        return own_samples(source.model, source.tokenizer)
    try:
        found = text.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise AtlasError(f"--text {text}: not UTF-8 ({error.reason} at {error.start})") from None
    if not source.tokenizer.encode(found):
        raise AtlasError(f"--text {text}: there is no text in it")
    return [found]


def print_exported(exported: Exported, folder: Path) -> None:
    """Prints a row for each file, and how near the runtimes come to PyTorch."""
    console = plain_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("file", "bytes", "perplexity", "KL divergence", "same likeliest", "matrices"):
        named = title in ("file", "matrices")
        table.add_column(title, justify="left" if named else "right", no_wrap=title == "file")
    for row in exported.files:
        table.add_row(
            row.file,
            f"{row.bytes:,}",
            f"{row.perplexity:.4f}",
            f"{row.kl_divergence:.2g}",
            f"{100 * row.top_1_agreement:.2f} %",
            row.types,
        )
    console.print(table)
    for key, value in exported.metrics.items():
        if key.endswith("logit_difference"):
            console.print(f"{key.replace('_', ' ')}: {value:.2g}")
    for file in files_below(folder):
        console.print(f"{folder / file.relative_to(folder)}", soft_wrap=True)
