"""Open models from elsewhere: Hugging Face folders, GGUF files and folders that Atlas wrote.

Only headers and tokenizers are read. What could run code is refused by name, and what is wrong with
a source is one line.
"""

import difflib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from atlas.errors import AtlasError, one_line
from atlas.export.bundle import StoredWeights
from atlas.inference.backends.base import TUNED_FROM
from atlas.inference.backends.exported import tokenizer_of
from atlas.inference.backends.load import (
    CONFIG,
    GGUF,
    PICKLES,
    SAFETENSORS,
    TOKENIZER_CONFIG,
    check_folder,
    is_hugging_face,
    pickled,
    read_json,
)
from atlas.inference.backends.trial import trying
from atlas.model.config import ModelConfig, check_tokenizer
from atlas.model.foreign.gguf import open_file
from atlas.model.foreign.hugging_face import open_folder
from atlas.model.foreign.tensors import ForeignWeights, check_size, stored_shapes
from atlas.params.schema import ModelParams
from atlas.pipeline.gguf_file import read_gguf
from atlas.tokens.tokenizer import Tokenizer

Kind = Literal["hugging_face", "gguf", "atlas"]
ORIGIN = "origin.json"  # of a folder that import wrote
TOKENIZER_JSON = "tokenizer.json"
HUB_NAME = re.compile(r"(?:https?://huggingface\.co/|hf://)?([\w.-]+/[\w.-]+)/?")
TYPE_SUFFIX = re.compile(r"[.-](?:i?q\d\w*|b?f16|f32|fp16|fp32)$", re.IGNORECASE)
LICENCE_FILE = re.compile(r"(?:LICEN[CS]E|COPYING)(?:\.txt|\.md)?", re.IGNORECASE)
LICENCE_LINE = re.compile(r"^license:[ \t]*['\"]?([^'\"\n]+)", re.MULTILINE)
MAX_README = 1 << 20  # bytes
MAX_TEXT = 200  # characters of a name or licence


class AtlasWeights:
    """The weights of an earlier run, or of another base model."""

    def __init__(self, folder: Path) -> None:
        config = ModelConfig.read(folder)
        if config.kind != "decoder":
            raise AtlasError(f"{folder}: a model of kind {config.kind}; only decoders can be used")
        self._stored = StoredWeights(folder)
        options = config.model_dump(include=set(ModelParams.model_fields))
        self.architecture = "a decoder in Atlas's own format"
        self.params = ModelParams.model_validate(options | {"dropout": 0.0})
        self.rows = config.vocab_size
        self.ignored = ()
        self.dtype = self._stored.dtype
        check_size(self.params, self.rows, self._stored.shapes, str(folder))
        described = stored_shapes(config)
        for name in sorted(described.keys() | self._stored.shapes.keys()):
            found, shape = self._stored.shapes.get(name), described.get(name)
            if found != shape:
                raise AtlasError(
                    f"{folder}: tensor {name} has shape {found}, and {CONFIG} describes {shape}; "
                    "get another copy"
                )
        self.size = 4 * sum(math.prod(shape) for shape in self._stored.shapes.values())

    def tensors(self, _vocab_size: int) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors; an earlier run has no unused rows."""
        for name in self._stored.shapes:
            yield name, self._stored.read(name)


Weights = ForeignWeights | AtlasWeights


@dataclass(frozen=True)
class Source:
    """A model from elsewhere: checked headers, and no weights in memory."""

    path: Path
    kind: Kind
    weights: Weights
    tokenizer: Tokenizer
    name: str
    tokenizer_file: Path | None = None  # the tokenizer is not in the source, but here
    author: str | None = None
    licence: str | None = None
    url: str | None = None
    licence_file: Path | None = None
    separator: int | None = None  # of questions, in a model that Atlas trained to answer them
    add_bos_token: bool = False


def open_source(path: Path, tokenizer: Path | None = None) -> Source:
    """Open a Hugging Face folder, a GGUF file or a folder that Atlas wrote.

    Only headers are read. Everything that could run code is refused by name.
    """
    if not path.exists():
        raise AtlasError(_missing(path))
    if path.is_file():
        return _open_gguf(path, tokenizer)
    if not path.is_dir():
        raise AtlasError(f"{path}: neither a file nor a folder; give the path of a model")
    for file in path.iterdir():
        if file.exists() and not file.is_file() and not file.is_dir():
            raise AtlasError(f"{file}: a pipe or device, not a file")
    if is_hugging_face(path):
        return _open_hugging_face(path, tokenizer)
    if not (path / CONFIG).is_file():
        raise AtlasError(f"{path}: {_no_config(path)}")
    if "kind" not in read_json(path / CONFIG):
        raise AtlasError(
            f"{path / CONFIG}: neither of transformers (with architectures or model_type) nor of "
            "Atlas, or damaged; get another copy"
        )
    return _open_atlas(path, tokenizer)


def _missing(path: Path) -> str:
    """Explain a path that does not exist, also one that is a name on the Hugging Face Hub."""
    name = HUB_NAME.fullmatch(str(path).replace(":/h", "://h"))  # Path makes one slash of two
    if name and not path.parent.exists():
        folder = name[1].split("/")[1]
        return (
            f"{path}: no such folder, and Atlas reads local files only; `hf download {name[1]} "
            f"--local-dir {folder}` (from the package huggingface_hub) gets it from the Hub, then "
            f"`atlas import {folder}`"
        )
    siblings = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f": did you mean {path.parent / close[0]}?" if close else ""
    return f"{path}: no such file or folder{hint}"


def _no_config(folder: Path) -> str:
    """Explain a folder without config.json."""
    names = sorted(file.name for file in folder.iterdir())
    if not names:
        return "an empty folder; give the folder of a model, or a GGUF file"
    if (folder / "models/model" / CONFIG).is_file():
        return f"a project, not a model; give {folder / 'models/model'}"
    if files := [name for name in names if name.lower().endswith(GGUF)]:
        return f"a folder of GGUF files; give one of them, such as {folder / files[0]}"
    if files := [name for name in names if Path(name).suffix in PICKLES]:
        return pickled(files[0])
    if any(name.endswith(SAFETENSORS) for name in names):
        return f"there are weights, but no {CONFIG} that describes the model; get it, too"
    return f"no model (no {CONFIG}); give the folder of a model, or a GGUF file"


def _open_gguf(path: Path, tokenizer: Path | None) -> Source:
    if path.suffix.lower() in PICKLES:
        raise AtlasError(f"{path.parent}: {pickled(path.name)}, and give the folder")
    if path.suffix.lower() == SAFETENSORS:
        raise AtlasError(f"{path}: give the folder with {CONFIG} and the tokenizer: {path.parent}")
    header = read_gguf(path)
    if header.get("split.count", 1) not in (0, 1):
        raise AtlasError(
            f"{path}: one of {header.get('split.count')} parts; join them with llama.cpp's "
            "`llama-gguf-split --merge`, and give the result"
        )
    if (kind := header.get("general.type", "model")) != "model":
        raise AtlasError(
            f"{path}: general.type is {_short(kind)}, so it is not a whole model; merge an adapter "
            "with its model, and give the result"
        )
    weights = open_file(path)
    with trying(path, "llama.cpp"):
        loaded = _load_tokenizer(tokenizer) if tokenizer else Tokenizer.load(path)

    def text(*keys: str) -> str | None:
        values = (header.get(f"general.{key}") for key in keys)
        return next((_short(value) for value in values if isinstance(value, str) and value), None)

    return Source(
        path=path,
        kind="gguf",
        weights=weights,
        tokenizer=loaded,
        tokenizer_file=tokenizer,
        name=_short(TYPE_SUFFIX.sub("", path.stem)),
        author=text("author", "organization"),
        licence=text("license"),
        url=text("source.url", "source.repo_url", "url", "repo_url"),
    )


def _load_tokenizer(path: Path) -> Tokenizer:
    """Load a tokenizer, a tokenizer.json only after another process did."""
    file = path / TOKENIZER_JSON if path.is_dir() else path
    if file.suffix == ".json" and file.is_file():
        with trying(file, "tokenizers"):
            pass
    return Tokenizer.load(path)


def _open_hugging_face(path: Path, tokenizer: Path | None) -> Source:
    for name in (CONFIG, TOKENIZER_CONFIG):
        if "auto_map" in read_json(path / name):
            raise AtlasError(
                f"{path / name}: auto_map names code of its own, which Atlas never runs; only "
                "models that transformers has itself can be used"
            )
    check_folder(path)
    weights = open_folder(path)
    return Source(
        path=path,
        kind="hugging_face",
        weights=weights,
        tokenizer=_load_tokenizer(tokenizer or path),
        name=_short(_hub_name(path.resolve())),
        tokenizer_file=tokenizer,
        licence=_licence(path / "README.md"),
        licence_file=_licence_file(path),
    )


def _open_atlas(path: Path, tokenizer: Path | None) -> Source:
    weights = AtlasWeights(path)
    file = tokenizer or tokenizer_of(path)
    config, loaded = ModelConfig.read(path), _load_tokenizer(file)
    check_tokenizer(config, loaded.sha256, str(file), str(path))
    origin = read_json(path / ORIGIN)
    known = {key: _short(origin[key]) for key in ("author", "url") if origin.get(key)}
    licence = (origin or read_json(path / TUNED_FROM)).get("license")
    return Source(
        path=path,
        kind="atlas",
        weights=weights,
        tokenizer=loaded,
        name=_short(origin.get("name") or model_name(path)),
        licence=_short(licence) if licence else None,
        licence_file=_licence_file(path),
        separator=config.separator,
        add_bos_token=config.add_bos_token,
        author=known.get("author"),
        url=known.get("url"),
    )


def model_name(folder: Path) -> str:
    """The name of a model that Atlas trained, from that of its folder."""
    name = folder.resolve().name
    return "atlas" if name == "model" else name


def _licence(readme: Path) -> str | None:
    """The license in the front matter of a model card."""
    try:
        with readme.open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_README)
    except OSError:
        return None
    _, _, rest = text.partition("---\n")
    found = LICENCE_LINE.search(rest.partition("\n---")[0])
    return _short(found[1]) if found else None


def _hub_name(folder: Path) -> str:
    """The name of a folder; in the cache of the Hub it is models--OWNER--NAME/snapshots/COMMIT."""
    cached = folder.parent.parent.name
    is_cached = folder.parent.name == "snapshots" and cached.startswith("models--")
    return cached.rpartition("--")[2] if is_cached else folder.name


def _licence_file(folder: Path) -> Path | None:
    """The file with the license of the weights; a link would copy what it points to."""
    files = (each for each in folder.iterdir() if LICENCE_FILE.fullmatch(each.name))
    return next((each for each in sorted(files) if each.is_file() and not each.is_symlink()), None)


def _short(value: object) -> str:
    return one_line(value)[:MAX_TEXT]
