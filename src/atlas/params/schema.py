"""The schema of params.yaml: what it may hold, and one clear line for what it may not.

Each class is a section, documented key by key in params.yaml itself. Nothing has a default and
no unknown key passes, so params.yaml is the one place where a value can come from. Every stage
validates the whole file first: what could not be trained or exported is refused at once.

The types of the values in params.yaml.
"""

import contextlib
import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from atlas.errors import AtlasError
from atlas.params.rules import conflicts
from atlas.params.runtime_support import known_format


def _number(value: object) -> object:
    """YAML 1.1 reads 3e-4 as text (dvc#5971)."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
PositiveReal = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(ge=0, lt=1)]
FilterName = Literal[
    "short",
    "word_length",
    "symbols",
    "bullets",
    "ellipsis",
    "letters",
    "english",
    "repetition",
]
Format = Annotated[str, AfterValidator(known_format)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


CorpusName = Literal[
    "python-docs",
    "shakespeare",
    "gutenberg",
    "novels",
    "fairytales",
    "tinystories",
    "babylm",
    "arithmetic",
    "modular",
    "stories",
    "files",
]
ModularOperation = Literal[
    "add", "subtract", "multiply", "divide", "square_sum", "quadratic", "cubic"
]


class Section(BaseModel):
    """A section of params.yaml: immutable, no unknown keys, no quiet conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CorpusParams(Section):
    """What fetch brings."""

    name: CorpusName
    path: Annotated[str, Field(min_length=1)]
    books: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    examples: Positive
    seed: Seed
    operation: ModularOperation
    modulus: Annotated[int, Field(ge=2, le=10_000)]


class CleanParams(Section):
    """What clean does to each document, and how documents become three splits."""

    separator: str
    text_field: Annotated[str, Field(min_length=1)]
    mojibake: Literal["repair", "keep"]
    unicode: Literal["NFC", "none"]
    control_characters: Literal["remove", "keep"]
    zero_width: Literal["remove", "keep"]
    gutenberg: Literal["strip", "keep"]
    transcriber_notes: Literal["keep", "remove"]
    unwrap: bool
    filters: Annotated[tuple[FilterName, ...], Field(strict=False)]
    bad_files: Literal["stop", "reject"]
    duplicates: Literal["near", "exact", "keep"]
    jaccard_threshold: Annotated[Share, Field(ge=0.2)]
    split_by: Literal["auto", "document", "position"]
    val: Annotated[Share, Field(gt=0)]
    test: Share
    seed: Seed


class TokenizerParams(Section):
    """What train_tokenizer learns."""

    path: Annotated[str, Field(min_length=1)]
    kind: Literal["bpe", "unigram", "char", "word"]
    vocab_size: Positive
    character_coverage: Annotated[Real, Field(gt=0, le=1)]
    split_digits: bool
    sample_megabytes: Positive
    seed: Seed


class TokenizeParams(Section):
    """How documents are joined and cut into windows."""

    separate_documents: bool
    windows: Literal["packed", "padded"]
    prompt_separator: str


class ModelParams(Section):
    """The kind of model, and its shape."""

    kind: Literal["decoder", "encoder_decoder", "two_layer", "bigram"]
    d_model: Positive
    n_layer: Positive
    n_head: Positive
    n_kv_head: Positive
    d_ff: Positive
    context_length: Annotated[int, Field(ge=2)]
    positions: Literal["rope", "learned", "sinusoidal", "alibi", "none"]
    rope_theta: Annotated[Real, Field(ge=1, le=1e12)]
    rope_scaling: Annotated[Real, Field(ge=1, le=1e6)]
    window: Count
    norm: Literal["rmsnorm", "layernorm"]
    norm_position: Literal["pre", "post", "reordered"]
    norm_eps: PositiveReal
    feed_forward: Literal["swiglu", "geglu", "gelu", "silu", "relu", "relu2"]
    qk_norm: Literal["none", "head", "all"]
    bias: bool
    tied_head: bool
    dropout: Share


class TrainParams(Section):
    """The optimisation."""

    seed: Seed
    init: Literal["scaled", "normal", "zero"]
    steps: Positive
    epochs: Count
    max_train_tokens: Count
    batch_size: Positive
    grad_accum_steps: Positive
    activation_checkpointing: bool
    precision: Literal["float32", "bfloat16", "float16"]
    optimizer: Literal["adamw", "muon", "sgd"]
    lr: PositiveReal
    muon_lr: PositiveReal
    momentum: Share
    schedule: Literal["cosine", "linear", "constant", "wsd"]
    min_lr_ratio: Annotated[Real, Field(ge=0, le=1)]
    decay_share: Annotated[Real, Field(ge=0, le=1)]
    warmup_steps: Count
    weight_decay: Annotated[Real, Field(ge=0)]
    beta1: Share
    beta2: Share
    max_grad_norm: Annotated[Real, Field(ge=0)]
    log_every: Positive
    eval_every: Positive
    eval_windows: Positive
    eval_train_windows: Count
    log_layers: Count
    patience: Count
    sample_tokens: Count


class EvaluateParams(Section):
    """What evaluate measures and samples."""

    weights: Literal["best", "last"]
    batch_size: Positive
    stride: Annotated[Real, Field(ge=0, le=1)]
    prompts: Annotated[tuple[str, ...], Field(strict=False)]
    sample_tokens: Positive
    temperature: Annotated[Real, Field(ge=0, le=100)]
    top_k: Count
    top_p: Annotated[Real, Field(gt=0, le=1)]
    free_samples: Count
    attention_prompts: Annotated[tuple[str, ...], Field(strict=False)]
    seed: Seed


class ExportParams(Section):
    """What export writes and how it is checked."""

    name: FileName
    author: str
    licence: str
    description: str
    source: str
    formats: Annotated[tuple[Format, ...], Field(strict=False)]
    check_prompts: Positive
    check_tokens: Positive
    check_windows: Count


class Params(Section):
    """The whole of params.yaml."""

    corpus: CorpusParams
    clean: CleanParams
    tokenizer: TokenizerParams
    tokenize: TokenizeParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams

    @classmethod
    def from_mapping(cls, values: object, file: str = "params.yaml") -> Self:
        """Validates what a YAML file held.

        Raises:
            AtlasError: a line for each problem, each naming the key and what it may be.
        """
        if not isinstance(values, dict):
            raise AtlasError(f"{file}: it has no sections; `git checkout {file}` brings it back")
        try:
            params = cls.model_validate(values)
        except ValidationError as error:
            problems = [explain(details, cls, file) for details in error.errors()]
        else:
            problems = list(conflicts(params))
            if not problems:
                return params
        raise AtlasError("; ".join(f"{file}: {problem}" for problem in problems))


def load_params(path: Path) -> Params:
    """Reads and validates params.yaml.

    Raises:
        AtlasError: the file is missing, not YAML, or not what the schema allows.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such file; run in the folder of dvc.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise AtlasError(f"{path}: not readable as YAML: {reason}") from None
    return Params.from_mapping(values, path.name)


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each leaf of nested mappings as its dotted key and its value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def explain(details: ErrorDetails, schema: type[BaseModel], file: str) -> str:
    """One problem that pydantic found in a file, as ``key is value: what it must be``."""
    key = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return f"{key} is not a known key{_suggestion(details['loc'], schema)}"
        case "missing":
            return f"{key} is missing: add it (`git diff {file}` shows what was taken out)"
        case "model_type":
            return f"{key} is a section: give its keys, each indented on a line of its own"
        case "string_pattern_mismatch":
            return f"{key} is {details['input']!r}: use letters, digits, '.', '_' and '-' alone"
        case "tuple_type":
            return f"{key} is {details['input']!r}: it must be a list, as [a, b]"
        case _:
            requirement = re.sub("^(Input should be|Value error,) ", "", details["msg"])
            return f"{key} is {details['input']!r}: it must be {requirement}"


def _suggestion(location: tuple[int | str, ...], schema: type[BaseModel]) -> str:
    fields: Mapping[str, Any] = schema.model_fields
    for part in location[:-1]:
        fields = fields[str(part)].annotation.model_fields
    close = difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.7)
    if not close:
        return f" (known: {', '.join(fields)})"
    return f": did you mean {'.'.join([*map(str, location[:-1]), close[0]])}?"
