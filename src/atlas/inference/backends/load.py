"""Finds out what a path holds."""

import json
from pathlib import Path

from atlas.errors import AtlasError
from atlas.inference.backends.loaded_model import OpenedModel
from atlas.model.config import FILE

GGUF = ".gguf"


def open_model(path: Path, tokenizer: Path | None = None) -> OpenedModel:
    """Opens a folder that train wrote, a Hugging Face folder or a GGUF file.

    Heavy imports wait until it is known which.

    Args:
        path: of it.
        tokenizer: of the first kind, a file or folder; else ``tokenizer`` beside the folder.

    Raises:
        AtlasError: it is none of them, or damaged.
    """
    if path.suffix.lower() == GGUF and not path.is_dir():
        if not path.is_file():
            raise AtlasError(f"{path}: no such file; `dvc repro` makes models/export/")
        from atlas.inference.backends.gguf_model import GGUFModel

        return GGUFModel(path)
    if path.exists() and not path.is_dir():
        raise AtlasError(f"{path}: not a model; give a folder or a file that ends in {GGUF}")
    from atlas.model.language_model import choose_device

    if _is_hugging_face(path / FILE):
        from atlas.inference.backends.hugging_face_model import HuggingFaceModel

        return HuggingFaceModel(path, choose_device())
    from atlas.inference.backends.atlas_model import AtlasModel

    beside = (path if path.name else path.absolute()).parent / "tokenizer"
    return AtlasModel.load(path, tokenizer or beside, choose_device())


def _is_hugging_face(config: Path) -> bool:
    try:
        return "architectures" in json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
