"""Load a model of any format from a path, and choose the engine that runs it."""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from atlas.errors import AtlasError, one_line
from atlas.inference.backends.base import LoadedModel
from atlas.inference.backends.exported import exported_gguf, tokenizer_of
from atlas.inference.backends.trial import trying

Engine = Literal["auto", "llama.cpp", "torch"]
GGUF = ".gguf"
CONFIG, TOKENIZER_CONFIG = "config.json", "tokenizer_config.json"
ADAPTER, INDEX = "adapter_config.json", "model.safetensors.index.json"
SAFETENSORS = ".safetensors"
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}
HASH = re.compile(r"[0-9a-f]{30,64}")  # name of a file in the cache of Hugging Face or of DVC
MAX_JSON = 1 << 24  # bytes
MAX_COUNT = 1 << 24  # of layers, labels, channels: transformers makes lists of them
MAX_NUMBER = (1 << 53) - 1  # the largest that JSON holds exactly in every language
BIG = re.compile("position|length|window|theta|base|token|seed")  # and what else may be large
FOREIGN_KEYS = {"architectures", "model_type", "auto_map"}  # of a config.json of transformers
logger = logging.getLogger(__name__)


def load_model(path: Path, tokenizer: Path | None = None, engine: Engine = "auto") -> LoadedModel:
    """Load a folder that train wrote, a Hugging Face folder or a GGUF file.

    A folder that train wrote is read with a tokenizer, by default the folder ``tokenizer`` in it or
    next to it. With ``auto`` it runs in llama.cpp if its F32 GGUF file is up to date, else in
    PyTorch.
    """
    if path.suffix.lower() == GGUF and not path.is_dir():
        return _load_gguf(path, engine)
    if path.exists() and not path.is_dir():
        raise AtlasError(f"{path}: not a model; give a folder or a file that ends in {GGUF}")
    for file in path.glob("*"):
        if file.exists() and not file.is_file() and not file.is_dir():
            raise AtlasError(f"{file}: a pipe or device, not a file")
    if is_hugging_face(path):
        if engine == "llama.cpp":
            raise AtlasError(
                f"--engine llama.cpp: {path} is a Hugging Face folder, which runs in PyTorch; "
                "leave --engine out, or give a GGUF file"
            )
        return _load_hugging_face(path)
    from atlas.inference.backends.atlas import AtlasModel

    gguf = None
    if engine != "torch":
        try:
            _require_cyllama(", or use --engine torch")
            gguf = exported_gguf(path)
        except AtlasError as error:
            if engine == "llama.cpp":
                raise AtlasError(f"--engine llama.cpp: {error}") from None
    return AtlasModel.load(path, tokenizer or tokenizer_of(path), gguf)


def _load_hugging_face(path: Path) -> LoadedModel:
    check_folder(path)
    tokenizer = path / "tokenizer.json"
    with trying(tokenizer, "tokenizers") if tokenizer.is_file() else nullcontext():
        from atlas.inference.backends.hugging_face import HuggingFaceModel
        from atlas.model.language_model import choose_device

    model = HuggingFaceModel(path, choose_device())
    if any("auto_map" in read_json(path / name) for name in (CONFIG, TOKENIZER_CONFIG)):
        logger.warning("%s: runs with the classes of transformers, not its own (auto_map)", path)
    return model


def _load_gguf(path: Path, engine: Engine) -> LoadedModel:
    if not path.is_file():
        raise AtlasError(f"{path}: no such file; `dvc repro` writes models/export/")
    if engine == "torch":
        raise AtlasError(
            f"--engine torch: {path} is a GGUF file, which runs in llama.cpp; leave --engine out, "
            "or give the folder it was exported from"
        )
    _require_cyllama()
    with trying(path, "llama.cpp"):
        from atlas.inference.backends.gguf import GGUFModel
    return GGUFModel(path)


def _require_cyllama(otherwise: str = "") -> None:
    if find_spec("cyllama") is None:
        raise AtlasError(f"llama.cpp needs the package cyllama: pip install cyllama{otherwise}")


def is_hugging_face(folder: Path) -> bool:
    """True if a folder has the config.json of a Hugging Face model, not of Atlas, or an adapter."""
    found = not FOREIGN_KEYS.isdisjoint(read_json(folder / CONFIG))
    return found or (folder / ADAPTER).is_file()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; anything else is an empty one, for transformers to complain about."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise AtlasError(f"{path}: larger than {MAX_JSON >> 20} MB")
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def check_folder(folder: Path) -> None:
    """Reject a folder that is not one whole model in safetensors, before anything is loaded."""
    files = {file.name: file for file in folder.iterdir() if file.is_file()}
    for file in files.values():
        target = file.resolve()
        inside = target.is_relative_to(folder.resolve())
        # Hugging Face's cache and DVC's link to files named by their hash; weights show nothing.
        if not inside and file.suffix != SAFETENSORS and not HASH.fullmatch(target.name):
            raise AtlasError(f"{file}: a link to {target}, out of the folder; copy the file here")
    if ADAPTER in files:
        base = read_json(files[ADAPTER]).get("base_model_name_or_path", "an unknown model")
        raise AtlasError(
            f"{folder}: an adapter of {one_line(base)[:80]}, not a whole model; merge the two with "
            "peft (merge_and_unload, save_pretrained) and open the result"
        )
    if not any(name.endswith(SAFETENSORS) for name in files):
        pickles = sorted(name for name, file in files.items() if file.suffix in PICKLES)
        if pickles:
            raise AtlasError(f"{folder}: {pickled(pickles[0])}")
        raise AtlasError(
            f"{folder}: transformers can't load it (no file of weights, such as model.safetensors)"
        )
    shards = read_json(files[INDEX]).get("weight_map", {}) if INDEX in files else {}
    for name in shards.values() if isinstance(shards, dict) else ():
        if not isinstance(name, str) or name not in files:
            raise AtlasError(f"{folder / INDEX}: names {one_line(name)[:80]}, not in the folder")
    for key, value in numbers_and_names(read_json(folder / CONFIG)):
        if key.endswith("_implementation") and not str(value).isidentifier():
            raise AtlasError(f"{folder / CONFIG}: {key} loads code from elsewhere; remove it")
        largest = MAX_NUMBER if BIG.search(key) else MAX_COUNT
        if isinstance(value, int) and not -MAX_NUMBER <= value <= largest:
            raise AtlasError(f"{folder / CONFIG}: {key} is {str(value)[:40]}; at most {largest}")


def pickled(name: str) -> str:
    """Explain why weights in a pickle are not read."""
    return (
        f"its weights are pickles ({name}), which can run code when they are read; get or convert "
        "it to model.safetensors"
    )


def numbers_and_names(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values of a config.json, also of nested ones, each with the key that it belongs to."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from numbers_and_names(value, name)
    elif isinstance(values, list):
        for value in values:
            yield from numbers_and_names(value, key)
    else:
        yield key, values
