"""Find the F32 GGUF file exported from a model, if it is up to date.

The export stage records the sha256 of the model's files in ``source.json`` next to what it wrote.
A GGUF file made from other weights, another config or another tokenizer (config.json holds its
hash) is never used in place of the model.
"""

import json
from pathlib import Path

from atlas.errors import AtlasError
from atlas.pipeline.files import sha256, write_json

SOURCE = "source.json"
SOURCE_FILES = ("config.json", "model.safetensors")


def record_source(export: Path, model: Path) -> None:
    """Write the hashes of a model's files into its export folder."""
    write_json(export / SOURCE, _hashes(model))


def exported_gguf(model: Path) -> Path:
    """The F32 GGUF file of a model, in the folder ``export`` next to the model's folder."""
    export = sibling(model, "export")
    files = sorted(export.glob("*-f32.gguf"))
    if len(files) != 1:
        raise AtlasError(
            f"{export}: no F32 GGUF file; add gguf:f32 to export.formats and run "
            "`dvc repro export`, or use --engine torch"
        )
    try:
        recorded = json.loads((export / SOURCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        recorded = None
    if recorded != _hashes(model):
        raise AtlasError(
            f"{files[0]}: not exported from the current {model}; run `dvc repro export`, or use "
            "--engine torch"
        )
    return files[0]


def sibling(model: Path, name: str) -> Path:
    """The folder with this name next to a model's folder."""
    return (model if model.name else model.absolute()).parent / name


def tokenizer_of(model: Path) -> Path:
    """The tokenizer of a model: in its folder for an imported one, else next to the folder."""
    inside = model / "tokenizer"
    return inside if inside.is_dir() else sibling(model, "tokenizer")


def _hashes(model: Path) -> dict[str, str]:
    return {name: sha256(model / name) for name in SOURCE_FILES if (model / name).is_file()}
