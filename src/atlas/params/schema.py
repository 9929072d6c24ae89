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
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
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
Text = Annotated[str, Field(min_length=1)]
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


# Names of the first edition, for the suggestion where one is still used.
FORMER_NAMES = {
    "corpus.path": "corpus.files.path",
    "corpus.books": "corpus.gutenberg.books",
    "corpus.examples": "corpus.arithmetic.examples or corpus.stories.examples",
    "corpus.seed": "corpus.arithmetic.seed or corpus.stories.seed",
    "corpus.operation": "corpus.modular.operation",
    "corpus.modulus": "corpus.modular.modulus",
    "clean.mojibake": "clean.fix_mojibake",
    "clean.unicode": "clean.unicode_normalization",
    "clean.control_characters": "clean.remove_control_characters",
    "clean.zero_width": "clean.remove_zero_width",
    "clean.gutenberg": "clean.strip_gutenberg",
    "clean.transcriber_notes": "clean.remove_transcriber_notes",
    "clean.similarity": "clean.jaccard_threshold",
    "tokenize.answer_after": "tokenize.prompt_separator",
    "model.norm_place": "model.norm_position",
    "train.tokens": "train.max_train_tokens",
    "train.accumulation": "train.grad_accum_steps",
    "train.recompute": "train.activation_checkpointing",
    "train.final_lr": "train.min_lr_ratio",
    "train.clip_norm": "train.max_grad_norm",
    "export.licence": "export.license",
}


class Section(BaseModel):
    """A section of params.yaml: immutable, no unknown keys, no quiet conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FilesParams(Section):
    """The user's own text."""

    path: Annotated[str, Field(min_length=1)]


class GutenbergParams(Section):
    """Books of Project Gutenberg."""

    books: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]


class ExamplesParams(Section):
    """Examples drawn by a generator."""

    examples: Positive
    seed: Seed


class ModularParams(Section):
    """A table of modular arithmetic."""

    operation: ModularOperation
    modulus: Annotated[int, Field(ge=2, le=10_000)]


class CorpusParams(Section):
    """Source of the raw text. Only the section of the named corpus is read."""

    name: CorpusName
    files: FilesParams
    gutenberg: GutenbergParams
    arithmetic: ExamplesParams
    modular: ModularParams
    stories: ExamplesParams


class CleanParams(Section):
    """What clean does to each document, and how documents become three splits."""

    separator: str | None
    text_field: Annotated[str, Field(min_length=1)]
    fix_mojibake: bool
    unicode_normalization: Literal["NFC"] | None
    remove_control_characters: bool
    remove_zero_width: bool
    strip_gutenberg: bool
    remove_transcriber_notes: bool
    unwrap: bool
    filters: Annotated[tuple[FilterName, ...], Field(strict=False)]
    bad_files: Literal["stop", "reject"]
    duplicates: Literal["near", "exact"] | None
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
    prompt_separator: str | None


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
    window: Positive | None
    norm: Literal["rmsnorm", "layernorm"]
    norm_position: Literal["pre", "post", "reordered"]
    norm_eps: PositiveReal
    feed_forward: Literal["swiglu", "geglu", "gelu", "silu", "relu", "relu2"]
    qk_norm: Literal["head", "all"] | None
    bias: bool
    tied_head: bool
    dropout: Share


class TrainParams(Section):
    """The optimisation."""

    seed: Seed
    init: Literal["scaled", "normal", "zero"]
    steps: Positive
    epochs: Positive | None
    max_train_tokens: Positive | None
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
    max_grad_norm: PositiveReal | None
    log_every: Positive
    eval_every: Positive
    eval_windows: Positive
    eval_train_windows: Positive | None
    log_layers: Positive | None
    patience: Positive | None
    sample_tokens: Positive | None


class EvaluateParams(Section):
    """What evaluate measures and samples."""

    weights: Literal["best", "last"]
    batch_size: Positive
    stride: Annotated[Real, Field(gt=0, le=1)] | None
    prompts: Annotated[tuple[str, ...], Field(strict=False)]
    sample_tokens: Positive
    temperature: Annotated[Real, Field(ge=0, le=100)]
    top_k: Positive | None
    top_p: Annotated[Real, Field(gt=0, le=1)]
    free_samples: Count
    attention_prompts: Annotated[tuple[str, ...], Field(strict=False)]
    seed: Seed


class ExportParams(Section):
    """What export writes and how it is checked."""

    name: FileName
    author: Text | None
    license: Text | None
    description: Text | None
    source: Text | None
    formats: Annotated[tuple[Format, ...], Field(strict=False)]
    check_prompts: Positive
    check_tokens: Positive
    check_windows: Positive | None


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
            return f"{key} is {details['input']!r}: it must be a list, such as [a, b]"
        case _:
            requirement = re.sub("^(Input should be|Value error,) ", "", details["msg"])
            if _may_be_null(details["loc"], schema):
                requirement = requirement.replace(" or ", ", ") + " or null"
            return f"{key} is {details['input']!r}: it must be {requirement}"


def _may_be_null(location: tuple[int | str, ...], schema: type[BaseModel]) -> bool:
    field = _fields(location, schema).get(str(location[-1]))
    return field is not None and type(None) in get_args(field.annotation)


def _suggestion(location: tuple[int | str, ...], schema: type[BaseModel]) -> str:
    *sections, name = map(str, location)
    renamed = FORMER_NAMES.get(".".join([*sections, name]))
    if renamed:
        return f": did you mean {renamed}?"
    fields = _fields(location, schema)
    close = difflib.get_close_matches(name, fields, n=1, cutoff=0.7)
    if not close:
        return f" (known: {', '.join(fields)})"
    return f": did you mean {'.'.join([*sections, close[0]])}?"


def _fields(location: tuple[int | str, ...], schema: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The fields of the section that holds a key; none if a list holds it."""
    for part in location[:-1]:
        annotation = schema.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return {}
        schema = annotation
    return schema.model_fields
