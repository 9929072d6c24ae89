"""The schema of params.yaml: what it may hold, and one clear line for what it may not.

Each class is a section, documented key by key in params.yaml itself. Nothing has a default and
no unknown key passes, so params.yaml is the one place where a value can come from. Every stage
validates the whole file first: what could not be trained or exported is refused at once.
"""

import contextlib
import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from atlas.architectures import architecture_of, nearest_change
from atlas.errors import AtlasError


def _number(value: object) -> object:
    """YAML 1.1 reads 3e-4 as text (dvc#5971)."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
PositiveReal = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(ge=0, lt=1)]
MAIN_OPTIONS = ("positions", "norm", "feed_forward")
Q8_0_ROW = 32  # values that share a scale
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Section(BaseModel):
    """A section of params.yaml: immutable, no unknown keys, no quiet conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CorpusParams(Section):
    """What fetch brings."""

    name: Literal["python-docs", "shakespeare", "files"]
    path: Annotated[str, Field(min_length=1)]


class CleanParams(Section):
    """What clean does to each document, and how documents become three splits."""

    unicode: Literal["NFC", "none"]
    control_characters: Literal["remove", "keep"]
    bad_files: Literal["stop", "reject"]
    split_by: Literal["auto", "document", "position"]
    val: Annotated[Share, Field(gt=0)]
    test: Share
    seed: Seed


class TokenizerParams(Section):
    """What train_tokenizer learns."""

    kind: Literal["bpe", "char"]
    vocab_size: Positive
    character_coverage: Annotated[Real, Field(gt=0, le=1)]
    split_digits: bool


class TokenizeParams(Section):
    """How documents are joined and stored as tokens."""

    separate_documents: bool
    shard_tokens: Annotated[int, Field(ge=1000)]


class ModelParams(Section):
    """The shape of the decoder."""

    d_model: Positive
    n_layer: Positive
    n_head: Positive
    n_kv_head: Positive
    d_ff: Positive
    context_length: Annotated[int, Field(ge=2)]
    positions: Literal["rope", "learned"]
    rope_theta: PositiveReal
    norm: Literal["rmsnorm", "layernorm"]
    norm_eps: PositiveReal
    feed_forward: Literal["swiglu", "gelu"]
    qk_norm: bool
    bias: bool
    tied_head: bool
    dropout: Share


class TrainParams(Section):
    """The optimisation."""

    seed: Seed
    steps: Positive
    batch_size: Positive
    accumulation: Positive
    lr: PositiveReal
    final_lr: Annotated[Real, Field(ge=0, le=1)]
    warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: Annotated[Real, Field(ge=0)]
    beta1: Share
    beta2: Share
    clip_norm: PositiveReal
    log_every: Positive
    eval_every: Positive
    eval_windows: Positive


class EvaluateParams(Section):
    """What evaluate measures and samples."""

    batch_size: Positive
    prompts: Annotated[tuple[str, ...], Field(strict=False)]
    sample_tokens: Positive
    temperature: Annotated[Real, Field(ge=0)]
    top_k: Annotated[int, Field(ge=0)]
    top_p: Annotated[Real, Field(gt=0, le=1)]
    seed: Seed


class ExportParams(Section):
    """What export writes and how it is checked."""

    name: FileName
    formats: Annotated[tuple[Literal["f32", "f16", "q8_0"], ...], Field(strict=False)]
    check_prompts: Positive
    check_tokens: Positive


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
            problems = [_explain(details) for details in error.errors()]
        else:
            problems = list(_conflicts(params))
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


def _conflicts(params: Params) -> Iterator[str]:
    """The rules that join several keys."""
    clean, tokenizer, model = params.clean, params.tokenizer, params.model
    train, export = params.train, params.export
    if clean.val + clean.test >= 1:
        held_out = clean.val + clean.test
        yield f"clean.val + clean.test is {held_out:g}: below 1 something is left to train on"
    if tokenizer.vocab_size < 261:
        yield (
            f"tokenizer.vocab_size is {tokenizer.vocab_size}: 260 pieces are special or single "
            "bytes, so give at least 261 and one more for each character of the text"
        )
    if model.d_model % model.n_head:
        yield (
            f"model.d_model ({model.d_model}) is not divisible by model.n_head ({model.n_head}): "
            f"try model.d_model={_fitting_width(params)}"
        )
    elif model.positions == "rope" and (model.d_model // model.n_head) % 2:
        yield (
            f"model.d_model / model.n_head is {model.d_model // model.n_head}: "
            "RoPE rotates pairs, so the head size must be even: "
            f"try model.d_model={_fitting_width(params)}"
        )
    if model.n_head % model.n_kv_head:
        yield (
            f"model.n_head ({model.n_head}) is not divisible by model.n_kv_head "
            f"({model.n_kv_head}): each key head serves the same number of query heads"
        )
    if train.batch_size % train.accumulation:
        yield (
            f"train.batch_size ({train.batch_size}) is not divisible by "
            f"train.accumulation ({train.accumulation})"
        )
    if train.warmup_steps > train.steps:
        yield (
            f"train.warmup_steps ({train.warmup_steps}) is more than train.steps ({train.steps}): "
            "the learning rate would never reach train.lr"
        )
    if len(set(export.formats)) < len(export.formats):
        yield f"export.formats names a format twice: {', '.join(export.formats)}"
    yield from _export_conflicts(params)


def _export_conflicts(params: Params) -> Iterator[str]:
    model, export = params.model, params.export
    if not export.formats:
        return
    options = model.model_dump()
    if architecture_of(options) is None:
        combination = " + ".join(f"{key} {options[key]}" for key in MAIN_OPTIONS)
        yield (
            f"export.formats: llama.cpp runs no model with {combination}"
            f"{' + qk_norm' if model.qk_norm else ''}{' + bias' if model.bias else ''}; "
            f"nearest: {nearest_change(options)} (or export.formats=[] to train without export)"
        )
    if "q8_0" in export.formats:
        fitting = {"d_model": _fitting_width(params), "d_ff": _round_up(model.d_ff, Q8_0_ROW)}
        for key, value in fitting.items():
            if options[key] % Q8_0_ROW:
                yield (
                    f"export.formats: q8_0 packs rows of {Q8_0_ROW}, and model.{key} is "
                    f"{options[key]}: try model.{key}={value} or leave q8_0 out"
                )


def _fitting_width(params: Params) -> int:
    """The next d_model that suits the heads, RoPE and the formats of the export, all at once."""
    head_multiple = params.model.n_head * (2 if params.model.positions == "rope" else 1)
    row_multiple = Q8_0_ROW if "q8_0" in params.export.formats else 1
    return _round_up(params.model.d_model, math.lcm(head_multiple, row_multiple))


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


def _explain(details: ErrorDetails) -> str:
    """One problem that pydantic found, as ``key is value: what it must be``."""
    key = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return f"{key} is not a known key{_suggestion(details['loc'])}"
        case "missing":
            return f"{key} is missing: add it (`git diff params.yaml` shows what was taken out)"
        case "model_type":
            return f"{key} is a section: give its keys, each indented on a line of its own"
        case "string_pattern_mismatch":
            return f"{key} is {details['input']!r}: use letters, digits, '.', '_' and '-' alone"
        case "tuple_type":
            return f"{key} is {details['input']!r}: it must be a list, as [a, b]"
        case _:
            requirement = details["msg"].removeprefix("Input should be ")
            return f"{key} is {details['input']!r}: it must be {requirement}"


def _suggestion(location: tuple[int | str, ...]) -> str:
    fields: Mapping[str, Any] = Params.model_fields
    for part in location[:-1]:
        fields = fields[str(part)].annotation.model_fields
    close = difflib.get_close_matches(str(location[-1]), fields, n=1, cutoff=0.7)
    if not close:
        return f" (known: {', '.join(fields)})"
    return f": did you mean {'.'.join([*map(str, location[:-1]), close[0]])}?"
