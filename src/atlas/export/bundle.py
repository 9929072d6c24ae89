"""Everything an export needs: a trained model, its metadata, and text to check the files with."""

import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from atlas.cleaning.documents import Document
from atlas.corpora.manifest import Manifest
from atlas.errors import AtlasError, one_line
from atlas.inference.backends.base import (
    ORIGINS,
    TUNED_FROM,
    chat_template,
    comes_from_elsewhere,
)
from atlas.inference.generate import generate
from atlas.inference.sampling import Sampling
from atlas.model.config import ModelConfig, check_tokenizer
from atlas.model.foreign.hugging_face import FLOATS
from atlas.model.transformer import Decoder
from atlas.model.weights import WEIGHTS, load_model
from atlas.tokens.shards import ShardWriter, SplitIndex, TokenIndex, TokenSplit, shard_path
from atlas.tokens.tokenizer import Tokenizer
from atlas.tokens.windows import EvaluationWindows, TokenBatch

MAX_URLS = 20
MAX_CHARACTERS = 20_000_000  # of the texts whose tokens are compared
BATCH_SIZE = 16  # windows per forward pass, fewer if they have more logits than the next number
MAX_LOGITS = 1 << 26
SAMPLES = 4
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The corpus a model was trained on."""

    corpus: str
    files: int
    bytes: int
    licences: tuple[str, ...]  # most common first
    urls: tuple[str, ...]  # the first MAX_URLS addresses that texts were downloaded from

    @classmethod
    def read(cls, path: Path) -> "TrainingData":
        """Read the manifest.json of the fetch stage; paths of local files are private."""
        manifest = Manifest.read(path)
        files = manifest.files
        licences = Counter(file.licence for file in files).most_common()
        urls = [file.url for file in files if file.url.startswith(("https://", "http://"))]
        return cls(
            corpus=manifest.corpus,
            files=len(files),
            bytes=sum(file.bytes for file in files),
            licences=tuple(licence for licence, _ in licences),
            urls=tuple(dict.fromkeys(urls))[:MAX_URLS],
        )

    def describe(self) -> str:
        """Describe the corpus in one line."""
        licences = ", ".join(self.licences) or "unknown"
        count = "1 file" if self.files == 1 else f"{self.files} files"
        return f"{self.corpus}: {count}, {self.bytes:,} bytes; licence: {licences}"


@dataclass(frozen=True)
class BaseModel:
    """The model from elsewhere that a model is, or that its training started from."""

    name: str
    author: str | None
    license: str | None
    url: str | None
    is_tuned: bool  # False: the model is the base itself, in Atlas's format

    @classmethod
    def read(cls, folder: Path) -> "BaseModel | None":
        """Read origin.json or base.json of a model's folder; None for a model from scratch."""
        for name in ORIGINS:
            path = folder / name
            if not path.is_file():
                continue
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                texts = {
                    key: one_line(str(values.get(key) or "")).replace('"', "'") or None
                    for key in ("name", "author", "license", "url")
                }
            except (OSError, ValueError, AttributeError):
                raise AtlasError(
                    f"{path}: damaged; `atlas import` or `dvc repro -f train` recreates it"
                ) from None
            texts["name"] = texts["name"] or "an unnamed model"
            return cls(**texts, is_tuned=name == TUNED_FROM)  # type: ignore[arg-type]
        return None

    def describe(self) -> str:
        """Describe the model in one line."""
        by = f" by {self.author}" if self.author else ""
        return f"{self.name}{by}; licence: {self.license or 'unknown'}"


@dataclass(frozen=True)
class ModelMetadata:
    """Metadata of a model; empty fields are left out of the files."""

    name: str  # also the stem of the names of its files
    author: str | None = None
    license: str | None = None  # of the weights, as an SPDX identifier
    description: str | None = None  # one sentence
    source: str | None = None  # URL of the model or of the code that made it
    data: TrainingData | None = None
    base: BaseModel | None = None

    def __post_init__(self) -> None:
        """Make each text one line without double quotes, safe in Markdown and in a Modelfile."""
        for key in ("author", "license", "description", "source"):
            text = one_line(getattr(self, key) or "").replace('"', "'")
            object.__setattr__(self, key, text or None)


class StoredWeights:
    """The weights of a model folder, read one tensor at a time.

    safetensors maps the file into memory, and pages that were read count as memory of the process
    until the file is unmapped. Opening the file anew for each tensor keeps that to one tensor.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / WEIGHTS
        self.shapes: dict[str, tuple[int, ...]] = {}
        kinds = set()
        try:
            with safe_open(self._path, framework="pt") as file:
                for name in file.offset_keys():
                    tensor = file.get_slice(name)
                    self.shapes[name] = tuple(tensor.get_shape())
                    if (kind := tensor.get_dtype()) not in FLOATS:
                        raise AtlasError(f"{self._path}: {name} has type {kind}, not a float type")
                    kinds.add(kind)
        except (OSError, SafetensorError) as error:
            raise AtlasError(
                f"{self._path}: cannot be read ({error}); run `dvc repro` to train the model again"
            ) from None
        has_16_bits = len(kinds) == 1 and kinds <= {"F16", "BF16"}
        self.dtype = FLOATS[kinds.pop()] if has_16_bits else torch.float32  # of all tensors

    def read(self, name: str) -> Tensor:
        """Read a tensor as float32; a stored float32 tensor stays on disk until it is used."""
        with safe_open(self._path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor.float()

    def empty(self, name: str) -> Tensor:
        """A tensor of the same shape without values, on the device ``meta``."""
        return torch.empty(self.shapes[name], device="meta")


@dataclass(frozen=True)
class ModelBundle:
    """A model folder (config.json, model.safetensors), its tokenizer and its metadata."""

    folder: Path
    config: ModelConfig
    tokenizer: Tokenizer
    metadata: ModelMetadata

    @classmethod
    def load(cls, folder: Path, tokenizer: Path, metadata: ModelMetadata) -> "ModelBundle":
        """Read a model and its tokenizer, and check that they match."""
        config = ModelConfig.read(folder)
        loaded = Tokenizer.load(tokenizer)
        check_tokenizer(config, loaded.sha256, str(tokenizer), str(folder))
        if config.vocab_size != loaded.vocab_size:
            raise AtlasError(
                f"{folder}: the embedding has {config.vocab_size} rows, but {tokenizer} has "
                f"{loaded.vocab_size} pieces; train the model with this tokenizer (`dvc repro`)"
            )
        base = BaseModel.read(folder)
        if base and not (metadata.license or base.license):
            logger.warning(
                "the licence of %s is unknown: find it out before you publish the model, and set "
                "export.license",
                base.name,
            )
        return cls(folder, config, loaded, with_base(metadata, base))

    @property
    def chat_template(self) -> str:
        """The chat template of the exported files."""
        from_elsewhere = comes_from_elsewhere(self.folder)
        return chat_template(self.config, self.tokenizer, from_elsewhere=from_elsewhere)

    @property
    def chats(self) -> bool:
        """True for a model that has learned the marks of its tokenizer's chat template."""
        return self.chat_template == self.tokenizer.chat_template

    @cached_property
    def model(self) -> Decoder:
        """The model on the CPU, loaded on first use."""
        model = load_model(self.folder, torch.device("cpu"))
        if not isinstance(model, Decoder):
            kind = self.config.kind
            raise AtlasError(f"{self.folder}: only decoders can be exported, and this is a {kind}")
        return model


@dataclass(frozen=True)
class ValidationData:
    """Text and windows of its tokens."""

    texts: list[str]  # to tokenize; the first ones also give logits and greedy continuations
    batches: list[TokenBatch[npt.NDArray[Any]]]  # windows of tokens, for perplexities
    prompts: int  # number of texts whose logits and greedy continuations are compared
    greedy_tokens: int  # length of a continuation
    description: str  # of the tokens in the windows, for the model card

    @classmethod
    def load(
        cls,
        documents: Iterable[Document],
        split: TokenSplit,
        length: int,
        *,
        prompts: int,
        greedy_tokens: int,
        max_windows: int | None,
        description: str = "text the model was not trained on",
    ) -> "ValidationData":
        """Load documents and up to ``max_windows`` windows spread over their tokens."""
        batch_size = min(BATCH_SIZE, max(1, MAX_LOGITS // (length * split.index.vocab_size)))
        windows = EvaluationWindows(split, length, batch_size)
        batches = list(windows.spread(max_windows or len(windows)))
        tokens = sum(batch.num_targets() for batch in batches)
        texts, characters = [], MAX_CHARACTERS
        for document in documents:
            texts.append(document.text[:characters])
            characters -= len(texts[-1])
            if not characters:
                break
        description = f"{tokens:,} tokens of {description}"
        return cls(texts, batches, prompts, greedy_tokens, description)


def with_base(metadata: ModelMetadata, base: BaseModel | None) -> ModelMetadata:
    """Add the base to metadata; its licence stays that of the weights if there is no other."""
    license_ = metadata.license or (base.license if base else None)
    return replace(metadata, license=license_, base=base)


def source_eos(tokenizer: Tokenizer) -> int:
    """The end token that the tokenizer's source calls eos: that of a message in a chat model."""
    name = tokenizer.special_names["eos_token"]
    return next(each for each in sorted(tokenizer.end_ids) if tokenizer.piece(each) == name)


def encode_texts(texts: Iterable[str], tokenizer: Tokenizer, folder: Path) -> TokenSplit:
    """Tokenize texts into an empty folder, as the val split of a corpus."""
    texts = list(texts)
    writer = ShardWriter(shard_path(folder, "val", 0), tokenizer.vocab_size, tokenizer.sha256)
    for text in texts:
        ids = [*tokenizer.encode(text), tokenizer.eos]
        writer.write(ids, [len(ids)])
    writer.close()
    size = SplitIndex([writer.tokens], writer.documents, sum(len(each.encode()) for each in texts))
    known = (tokenizer.vocab_size, tokenizer.eos, tokenizer.pad, None, tokenizer.sha256)
    TokenIndex(*known, "packed", {"val": size}, tokenizer.window_start).write(folder)
    return TokenSplit(folder, "val")


def sample_texts(model: Decoder, tokenizer: Tokenizer) -> list[str]:
    """Generate texts with the model, to check it without other text.

    The texts are sampled from the model's own probabilities (temperature 1), so the KL divergence
    over them is that to expect on the model's own output.
    """
    length = model.config.sequence_length
    samplings = [Sampling(temperature=1, top_k=0, top_p=1, seed=seed) for seed in range(SAMPLES)]
    samples = (tokenizer.decode(generate(model, [], length, each)) for each in samplings)
    texts = [text for text in samples if tokenizer.encode(text)]
    if not texts:
        raise AtlasError("--text: all samples of the model are empty; pass a text to check it with")
    return texts
