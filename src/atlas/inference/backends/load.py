"""Load a model of any format from a path, and choose the engine that runs it."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from atlas.errors import AtlasError
from atlas.inference.backends.base import LoadedModel
from atlas.inference.backends.exported import exported_gguf, sibling

Engine = Literal["auto", "llama.cpp", "torch"]
GGUF = ".gguf"


def load_model(path: Path, tokenizer: Path | None = None, engine: Engine = "auto") -> LoadedModel:
    """Load a folder that train wrote, a Hugging Face folder or a GGUF file.

    A folder that train wrote is read with a tokenizer, by default ``tokenizer`` next to it. With
    ``auto`` it runs in llama.cpp if its F32 GGUF file is up to date, else in PyTorch.
    """
    if path.suffix.lower() == GGUF and not path.is_dir():
        return _load_gguf(path, engine)
    if path.exists() and not path.is_dir():
        raise AtlasError(f"{path}: not a model; give a folder or a file that ends in {GGUF}")
    if _is_hugging_face(path / "config.json"):
        if engine == "llama.cpp":
            raise AtlasError(
                f"--engine llama.cpp: {path} is a Hugging Face folder, which runs in PyTorch; "
                "leave --engine out, or give a GGUF file"
            )
        from atlas.inference.backends.hugging_face import HuggingFaceModel
        from atlas.model.language_model import choose_device

        return HuggingFaceModel(path, choose_device())
    from atlas.inference.backends.atlas import AtlasModel

    gguf = None
    if engine != "torch":
        try:
            _require_cyllama(", or use --engine torch")
            gguf = exported_gguf(path)
        except AtlasError as error:
            if engine == "llama.cpp":
                raise AtlasError(f"--engine llama.cpp: {error}") from None
    return AtlasModel.load(path, tokenizer or sibling(path, "tokenizer"), gguf)


def _load_gguf(path: Path, engine: Engine) -> LoadedModel:
    if not path.is_file():
        raise AtlasError(f"{path}: no such file; `dvc repro` writes models/export/")
    if engine == "torch":
        raise AtlasError(
            f"--engine torch: {path} is a GGUF file, which runs in llama.cpp; leave --engine out, "
            "or give the folder it was exported from"
        )
    _require_cyllama()
    from atlas.inference.backends.gguf import GGUFModel

    return GGUFModel(path)


def _require_cyllama(otherwise: str = "") -> None:
    if find_spec("cyllama") is None:
        raise AtlasError(f"llama.cpp needs the package cyllama: pip install cyllama{otherwise}")


def _is_hugging_face(config: Path) -> bool:
    try:
        return "architectures" in json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False
