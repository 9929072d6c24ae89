"""The schema of params.yaml, and the rules that involve several keys.

Each class is a section; params.yaml itself documents the keys. Nothing has a default and unknown
keys are forbidden, so params.yaml is the only source of values. Every stage validates the whole
file first: a model that could not be trained or exported is rejected before any work.
"""

import contextlib
import re
from ast import literal_eval
from collections.abc import Iterator, Mapping, Sequence
from encodings.aliases import aliases
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from atlas.errors import AtlasError, did_you_mean, one_line
from atlas.params.mixture import mix_conflicts
from atlas.params.runtime_support import (
    ADAPTER,
    GATED,
    export_conflicts,
    fitting_width,
    known_format,
)
from atlas.params.start import freeze_conflicts, is_empty, start_conflicts

BYTES = 256
ESCAPE = re.compile(r"\\(?:[ntrfv\\]|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})")
CHAT_TEMPLATES = "chat_templates"  # a folder of the project
# Pieces that each kind of tokenizer has before it sees text: unknown, end of text, padding, line
# end, tab, and the bytes; of byte_bpe, end of text, padding and the bytes.
FIXED_PIECES = {
    "bpe": 5 + BYTES,
    "unigram": 5,
    "char": 5 + BYTES,
    "word": 4,
    "byte_bpe": 2 + BYTES,
}


def _number(value: object) -> object:
    """Convert text such as 3e-4, which YAML 1.1 does not read as a number (dvc#5971)."""
    with contextlib.suppress(ValueError):
        return float(value) if isinstance(value, str) else value
    return value


def _whole_number(value: object) -> object:
    """Convert a whole number with a fraction or an exponent, such as 1e3 or 1000.0."""
    number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else value


def _unescape(value: object) -> object:
    r"""Replace backslash escapes, which shells and DVC pass on as they are typed (``\n``)."""
    if not isinstance(value, str):
        return value
    return ESCAPE.sub(lambda match: str(literal_eval(f"'{match[0]}'")), value)


def _text_field(value: object) -> object:
    """Check ``text_field``: a key, a column number, a template, or a list of these."""
    if isinstance(value, list | tuple) and value:
        return tuple(map(_text_field, value))
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("a key, a column number from 1 on, a template, or a list of these")
    text = str(_unescape(value))
    rest, fields = re.subn(r"\{[^{}]+\}", "", re.sub(r"\{\{|\}\}", "", text))
    if "{" in rest or "}" in rest:
        raise ValueError("a template whose braces come in pairs; {{ and }} stand for { and }")
    if rest != text and not fields:
        raise ValueError("a template with a key in braces, such as {text}")
    return text


def _known_encoding(name: str) -> str:
    try:
        "a".encode(name)
    except (LookupError, UnicodeError):  # unknown, or not for text
        suggestion = did_you_mean(name.lower(), {*aliases, *aliases.values()}).removeprefix(": ")
        hint = f" ({suggestion})" if suggestion else ", such as cp1252"
        raise ValueError(f"an encoding that Python knows{hint}") from None
    return name


Whole = Annotated[int, BeforeValidator(_whole_number)]
Positive = Annotated[Whole, Field(gt=0)]
Count = Annotated[Whole, Field(ge=0)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
PositiveReal = Annotated[Real, Field(gt=0)]
Share = Annotated[Real, Field(ge=0, lt=1)]
# llama.cpp's names of ways to split a text before bytes are merged.
PreTokenizerName = Literal[
    "gpt-2", "smollm", "starcoder", "llama-bpe", "dbrx", "qwen2", "stablelm2", "qwen35",
    "seed-coder", "bloom", "viking",
]  # fmt: skip
FilterName = Literal[
    "short", "word_length", "symbols", "bullets", "ellipsis", "letters", "english", "repetition"
]
Frozen = Annotated[str, Field(pattern=r"^[a-z_]+(\.\d{1,4}(-\d{1,4})?)?$")]
LoraTarget = Literal["query", "key", "value", "output", "gate", "up", "down"]
Format = Annotated[str, AfterValidator(known_format)]
Text = Annotated[str, Field(min_length=1)]
TextField = Annotated[str | int | tuple[str | int, ...], PlainValidator(_text_field)]
Encoding = Annotated[str, Field(min_length=1), AfterValidator(_known_encoding)]
Texts = Annotated[tuple[str, ...], Field(strict=False)]  # a list, in YAML
Separator = Annotated[str, BeforeValidator(_unescape), Field(min_length=1)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

Download = Literal[
    "python-docs", "shakespeare", "gutenberg", "novels", "fairytales", "tinystories", "babylm"
]
CorpusName = Literal[Download, "arithmetic", "modular", "stories", "files"]
ModularOperation = Literal[
    "add", "subtract", "multiply", "divide", "square_sum", "quadratic", "cubic"
]


# Our keys and values with the names that other projects use; an error about one suggests ours.
OTHER_KEYS = {
    "clean.jaccard_threshold": "similarity similarity_threshold",
    "tokenizer.vocab_size": "n_vocab",
    "model.d_model": "n_embd n_embed hidden_size hidden_dim embedding_size embed_dim dim width",
    "model.n_layer": "layers depth num_layers num_hidden_layers",
    "model.n_head": "heads num_heads num_attention_heads",
    "model.n_kv_head": "n_query_groups num_key_value_heads",
    "model.d_head": "head_dim head_size d_kv kv_channels",
    "model.d_ff": "intermediate_size ffn_dim",
    "model.context_length": "block_size context max_length seq_len max_seq_len "
    "max_position_embeddings n_ctx n_positions",
    "model.positions": "position_embedding position_encoding positional_encoding",
    "model.feed_forward": "activation hidden_act mlp",
    "model.rope_scaling": "rope_factor rope_scaling_factor",
    "model.rope_scaling_kind": "rope_type rope_scaling_type",
    "model.rope_scaling_context": "original_max_position_embeddings",
    "model.rope_scaling_rotations": "low_freq_factor high_freq_factor beta_fast beta_slow",
    "model.rotary_share": "partial_rotary_factor rotary_pct rotary_percentage rotary_dim",
    "model.no_rope_every": "no_rope_layer_interval no_rope_layers nope_every",
    "model.window": "sliding_window",
    "model.bias": "attention_bias mlp_bias qkv_bias use_bias use_qkv_bias",
    "model.tied_head": "weight_tying tie_word_embeddings",
    "model.norm_eps": "rms_norm_eps layer_norm_eps layer_norm_epsilon",
    "train.start": "init_from pretrained base_model model_name_or_path resume_from",
    "train.freeze": "freeze_layers frozen_layers",
    "train.lora.rank": "r lora_r lora_rank",
    "train.lora.alpha": "lora_alpha",
    "train.lora.targets": "target_modules lora_target lora_target_modules",
    "train.lr": "learning_rate max_lr",
    "train.steps": "iters iterations max_iters max_steps num_steps",
    "train.epochs": "max_epochs num_epochs num_train_epochs",
    "train.max_train_tokens": "max_tokens",
    "train.batch_size": "micro_batch_size per_device_train_batch_size",
    "train.grad_accum_steps": "accumulation gradient_accumulation_steps",
    "train.activation_checkpointing": "gradient_checkpointing recompute",
    "train.precision": "dtype bf16 fp16 mixed_precision",
    "train.optimizer": "optim",
    "train.schedule": "scheduler lr_scheduler lr_scheduler_type decay_lr",
    "train.min_lr_ratio": "min_lr final_lr",
    "train.warmup_share": "warmup_ratio warmup_steps warmup_iters num_warmup_steps",
    "train.beta1": "betas adam_beta1",
    "train.beta2": "adam_beta2",
    "train.max_grad_norm": "grad_clip clip_norm gradient_clip_val gradient_clipping",
    "train.log_every": "log_interval logging_steps",
    "train.eval_every": "eval_interval eval_steps",
    "train.eval_windows": "eval_iters",
    "train.patience": "early_stopping early_stopping_patience",
    "export.formats": "quantization quantizations",
}
OTHER_VALUES = {
    "adamw": "adam",
    "bfloat16": "bf16",
    "float16": "fp16 f16 half",
    "float32": "fp32 f32 full single",
    "rope": "rotary",
    "learned": "absolute",
    "wsd": "trapezoidal",
    "decoder": "gpt llama transformer",
    "encoder_decoder": "seq2seq t5",
    "query": "q_proj wq c_attn q",
    "key": "k_proj wk k",
    "value": "v_proj wv v",
    "output": "o_proj wo c_proj o",
    "gate": "gate_proj w1",
    "up": "up_proj w3 c_fc",
    "down": "down_proj w2",
    "char": "character byte",
    "near": "fuzzy minhash",
    "true": "yes on 1",
    "false": "no off 0",
    "null": "none ~ off no false",
}


def _inverted(names: Mapping[str, str]) -> dict[str, list[str]]:
    """Map each name of others to ours."""
    ours: dict[str, list[str]] = {}
    for name, others in names.items():
        for other in others.split():
            ours.setdefault(other, []).append(name)
    return ours


OUR_KEYS, OUR_VALUES = _inverted(OTHER_KEYS), _inverted(OTHER_VALUES)


class Section(BaseModel):
    """A section of params.yaml: frozen, without unknown keys or implicit conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FilesParams(Section):
    """The user's own text."""

    path: Text


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
    modulus: Annotated[Whole, Field(ge=2, le=10_000)]


class MixEntry(Section):
    """A corpus of a mix. Keys other than the name can be left out."""

    name: CorpusName
    path: Text | None = None  # of files
    label: FileName | None = None  # in tables; by default the name of the path or the corpus
    weight: Annotated[Real, Field(gt=0, le=1000)] | None = None
    share: Annotated[Real, Field(gt=0, le=1)] | None = None
    optional: bool = False  # go on without it if it can't be fetched or nothing of it is left


def _mix_entry(value: object) -> object:
    """Convert the name of a corpus to an entry with that name."""
    return {"name": value} if isinstance(value, str) else value


class CorpusParams(Section):
    """Source of the raw text. Only the section of the named corpus is read."""

    name: Literal[CorpusName, "mix"]
    mix: (
        Annotated[tuple[Annotated[MixEntry, BeforeValidator(_mix_entry)], ...], Field(strict=False)]
        | None
    )
    files: FilesParams
    gutenberg: GutenbergParams
    arithmetic: ExamplesParams
    modular: ModularParams
    stories: ExamplesParams

    @property
    def has_files(self) -> bool:
        """True if some of the text is the user's own."""
        return "files" in (self.name, *(entry.name for entry in self.mix or ()))


class CleanParams(Section):
    """Cleaning of documents, and their split into train, val and test."""

    documents: Literal["auto", "file", "paragraph", "line", "separator"]
    separator: Separator | None
    encoding: Encoding | None
    text_field: TextField
    text_lists: Literal["join", "documents"]
    fix_mojibake: bool
    unicode_normalization: Literal["NFC"] | None
    remove_control_characters: bool
    remove_zero_width: bool
    strip_gutenberg: bool
    remove_transcriber_notes: bool
    unwrap: bool
    repeated_lines: Annotated[Share, Field(gt=0)] | None
    filters: Annotated[tuple[FilterName, ...], Field(strict=False)]
    bad_files: Literal["stop", "reject"]
    duplicates: Literal["near", "exact"] | None
    jaccard_threshold: Annotated[Share, Field(ge=0.2)]
    split_by: Literal["auto", "document", "position"]
    val: Annotated[Share, Field(gt=0)]
    test: Share
    seed: Seed


class TokenizerParams(Section):
    """The tokenizer and its training."""

    path: Text
    kind: Literal["bpe", "unigram", "char", "word", "byte_bpe"]
    vocab_size: Positive
    pre_tokenizer: PreTokenizerName
    character_coverage: Annotated[Real, Field(gt=0, le=1)]
    split_digits: bool
    sample_megabytes: Positive
    seed: Seed


class ChatParams(Section):
    """How conversations become text."""

    template: Text | None

    def read(self) -> str | None:
        """Return the template, chat_templates/NAME.jinja of the project in this folder."""
        if self.template is None:
            return None
        try:
            return Path(CHAT_TEMPLATES, f"{self.template}.jinja").read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise AtlasError(
                f"chat.template: {self.template}.jinja is not a text ({error})"
            ) from None


class TokenizeParams(Section):
    """Joining documents and cutting them into windows."""

    separate_documents: bool
    windows: Literal["packed", "padded"]
    document_mask: bool
    prompt_separator: str | None


class ModelParams(Section):
    """The architecture of the model."""

    kind: Literal["decoder", "encoder_decoder", "two_layer", "bigram"]
    d_model: Positive
    n_layer: Positive
    n_head: Positive
    n_kv_head: Positive
    d_head: Positive | None
    d_ff: Positive
    context_length: Annotated[Whole, Field(ge=2)]
    positions: Literal["rope", "learned", "sinusoidal", "alibi", "none"]
    rope_theta: Annotated[Real, Field(ge=1, le=1e12)]
    rope_scaling: Annotated[Real, Field(ge=1, le=1e6)]
    rope_scaling_kind: Literal["linear", "llama3", "yarn"]
    rope_scaling_context: Positive | None
    rope_scaling_rotations: (
        Annotated[tuple[PositiveReal, ...], Field(strict=False, min_length=2, max_length=2)] | None
    )
    rotary_share: Annotated[Real, Field(gt=0, le=1)]
    no_rope_every: Positive | None
    window: Positive | None
    norm: Literal["rmsnorm", "layernorm"]
    norm_position: Literal["pre", "post", "reordered"]
    norm_eps: PositiveReal
    feed_forward: Literal["swiglu", "geglu", "gelu", "silu", "relu", "relu2"]
    qk_norm: Literal["head", "all"] | None
    bias: Literal[False, True, "qkv", "norm", "qkv_norm"]
    tied_head: bool
    dropout: Share


class LoraParams(Section):
    """A low-rank change of given matrices, trained instead of them."""

    rank: Positive | None
    alpha: PositiveReal
    targets: Annotated[tuple[LoraTarget, ...], Field(strict=False, min_length=1)]


class TrainParams(Section):
    """The training of the model."""

    start: Text
    freeze: Annotated[tuple[Frozen, ...], Field(strict=False)]
    lora: LoraParams
    seed: Seed
    init: Literal["scaled", "normal", "zero"]
    steps: Positive
    epochs: Positive | None
    max_train_tokens: Positive | None
    batch_size: Positive
    sequence_length: Annotated[Whole, Field(ge=2)] | None
    grad_accum_steps: Positive
    activation_checkpointing: bool
    precision: Literal["float32", "bfloat16", "float16", "auto"]
    optimizer: Literal["adamw", "muon", "sgd"]
    lr: PositiveReal
    muon_lr: PositiveReal
    momentum: Share
    schedule: Literal["cosine", "linear", "constant", "wsd"]
    min_lr_ratio: Annotated[Real, Field(ge=0, le=1)]
    decay_share: Annotated[Real, Field(ge=0, le=1)]
    warmup_share: Annotated[Real, Field(ge=0, le=1)]
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
    """Measurements and samples."""

    weights: Literal["best", "last"]
    batch_size: Positive
    stride: Annotated[Real, Field(gt=0, le=1)] | None
    prompts: Texts
    sample_tokens: Positive
    temperature: Annotated[Real, Field(ge=0, le=100)]
    top_k: Positive | None
    top_p: Annotated[Real, Field(gt=0, le=1)]
    free_samples: Count
    attention_prompts: Texts
    seed: Seed


class ExportParams(Section):
    """Exported files and their checks."""

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
    """All of params.yaml."""

    corpus: CorpusParams
    clean: CleanParams
    tokenizer: TokenizerParams
    chat: ChatParams
    tokenize: TokenizeParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams
    export: ExportParams

    @classmethod
    def from_mapping(cls, values: object, file: str = "params.yaml", root: Path = Path()) -> Self:
        """Validate the content of a YAML file; paths in it are relative to ``root``."""
        if not isinstance(values, dict):
            raise AtlasError(f"{file}: it has no sections; `git checkout {file}` restores it")
        try:
            params = cls.model_validate(values)
        except ValidationError as error:
            problems = [explain(details, cls, file) for details in _causes(error)]
        else:
            problems = list(conflicts(params, root))
            if not problems:
                return params
        raise AtlasError("; ".join(f"{file}: {problem}" for problem in problems))


def load_params(path: Path) -> Params:
    """Read and validate params.yaml."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such file; run in the folder that holds dvc.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AtlasError(f"{path}: not readable as YAML: {one_line(error)}") from None
    return Params.from_mapping(values, path.name, path.parent)


def _causes(error: ValidationError) -> Iterator[ErrorDetails]:
    """Yield the problems that pydantic found; a list is not short because of its wrong items."""
    found = error.errors()
    lists = {details["loc"][:-1] for details in found}
    for details in found:
        if details["type"] != "too_short" or details["loc"] not in lists:
            yield details


def explain(details: ErrorDetails, schema: type[BaseModel], file: str) -> str:
    """Explain one problem that pydantic found, as ``key is value: it must be ...``."""
    key = ".".join(str(part) for part in details["loc"])
    match details["type"]:
        case "extra_forbidden":
            return f"{key} is not a known key{_suggestion(details['loc'], schema)}"
        case "missing":
            return f"{key} is missing: add it (`git diff {file}` shows what was removed)"
        case "model_type":
            return f"{key} is a section: put each of its keys on a line of its own, indented"
        case "string_pattern_mismatch":
            return f"{key} is {details['input']!r}: use only letters, digits, '.', '_' and '-'"
        case "tuple_type":
            return f"{key} is {details['input']!r}: it must be a list, such as [a, b]"
        case _:
            requirement = re.sub("^(Input should be|Value error,) ", "", details["msg"])
            requirement = re.sub("^Tuple should have (.*) after.*", r"a list of \1", requirement)
            allowed = re.findall("'(.*?)'", requirement)
            if details["type"] in ("bool_type", "bool_parsing"):
                allowed = ["true", "false"]
            elif "False, True" in requirement:
                requirement = requirement.replace("False, True", "false, true")
                allowed += ["true", "false"]
            if _may_be_null(details["loc"], schema):
                if details["type"] == "literal_error":
                    requirement = requirement.replace(" or ", ", ")
                requirement += " or null"
                allowed.append("null")
            hint = _closest_value(str(details["input"]), allowed)
            return f"{key} is {details['input']!r}: it must be {requirement}{hint}"


def _may_be_null(location: tuple[int | str, ...], schema: type[BaseModel]) -> bool:
    field = _fields(location, schema).get(str(location[-1]))
    return field is not None and type(None) in get_args(field.annotation)


def _closest_value(value: str, allowed: Sequence[str]) -> str:
    value = value.lower()
    ours = [each for each in OUR_VALUES.get(value, []) if each in allowed]
    lower = {each.lower(): each for each in allowed}
    return f": did you mean {ours[0]}?" if ours else did_you_mean(value, lower)


def _suggestion(location: tuple[int | str, ...], schema: type[BaseModel]) -> str:
    """Suggest a key instead of an unknown one: by its name elsewhere, or by its spelling."""
    prefix, name = "".join(f"{part}." for part in location[:-1]), str(location[-1]).lower()
    everywhere = list(_keys(schema))
    same = [key for key in everywhere if key.rpartition(".")[2] == name]
    here = [key for key in same if key.startswith(prefix)]
    if found := here or [key for key in OUR_KEYS.get(name, same) if key in everywhere]:
        return f": did you mean {' or '.join(found)}?"
    known = _fields(location, schema)
    longer = [prefix + key for key in known if name in key]
    hint = f": did you mean {' or '.join(longer)}?" if 0 < len(longer) <= 2 else ""
    return hint or did_you_mean(name, known, prefix) or f" (known: {', '.join(known)})"


def _keys(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every param."""
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _fields(location: tuple[int | str, ...], schema: type[BaseModel]) -> Mapping[str, FieldInfo]:
    """The fields of the section that holds a key; none if a list holds it."""
    section: type[BaseModel] | None = schema
    for part in location[:-1]:
        if section is None:
            return {}
        if isinstance(part, str):  # else an entry of a list of sections
            section = _section(section.model_fields[part].annotation)
    return section.model_fields if section else {}


def _section(annotation: object) -> type[BaseModel] | None:
    """The section of an annotation, which may be a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)


def conflicts(params: Params, root: Path) -> Iterator[str]:
    """Yield each conflict between keys, with a way to fix it."""
    clean, tokenizer, train = params.clean, params.tokenizer, params.train
    yield from _corpus_conflicts(params)
    for key, listed in {
        "corpus.gutenberg.books lists a book": params.corpus.gutenberg.books,
        "clean.filters lists a filter": clean.filters,
        "train.lora.targets lists a layer": train.lora.targets,
    }.items():
        if len(set(listed)) < len(listed):
            yield f"{key} twice: {', '.join(map(str, listed))}"
    if (held_out := clean.val + clean.test) >= 1:
        yield f"clean.val + clean.test is {held_out:g}: keep it below 1, to leave text to train on"
    size, fixed = tokenizer.vocab_size, FIXED_PIECES[tokenizer.kind]
    if size <= fixed:
        content = "special or single bytes" if fixed > BYTES else "special"
        yield (
            f"tokenizer.vocab_size is {size}: {fixed} pieces of tokenizer.kind={tokenizer.kind} "
            f"are {content}; give at least {fixed + 1}, and one more for each character"
        )
    yield from _model_conflicts(params.model, params.export.formats)
    yield from _document_mask_conflicts(params)
    if (name := params.chat.template) is not None:
        known = sorted(path.stem for path in (root / CHAT_TEMPLATES).glob("*.jinja"))
        if name not in known:
            yield (
                f"chat.template: no {CHAT_TEMPLATES}/{name}.jinja{did_you_mean(name, known)} "
                f"(available: {', '.join(known)})"
            )
    yield from _question_conflicts(params)
    yield from _clean_conflicts(params.clean)
    batch, parts = train.batch_size, train.grad_accum_steps
    if batch % parts:
        yield f"train.batch_size ({batch}) is not divisible by train.grad_accum_steps ({parts})"
    length, context = train.sequence_length, params.model.context_length
    if length is not None and length > context:
        yield (
            f"train.sequence_length ({length}) is more than model.context_length ({context}): "
            "shorten it, or set it to null"
        )
    if train.init == "zero" and params.model.norm_position == "post":
        yield (
            "train.init is zero with model.norm_position=post, where the norms change the stream "
            "anyway: set train.init=scaled or model.norm_position=pre"
        )
    yield from start_conflicts(train.start, tokenizer.path, params.model.model_dump(), root)
    yield from freeze_conflicts(train.freeze, params.model.model_dump())
    if train.lora.rank is not None:
        yield from _lora_conflicts(params, root)
    elif ADAPTER in params.export.formats:
        yield (
            f"export.formats: {ADAPTER} needs a model trained with LoRA: set train.lora.rank "
            f"(`atlas preset base lora`), or drop {ADAPTER}"
        )
    for problem in export_conflicts(params.model.model_dump(), params.export.formats):
        yield f"export.formats: {problem}"


def _corpus_conflicts(params: Params) -> Iterator[str]:
    name, mix = params.corpus.name, params.corpus.mix
    if not mix:
        if name == "mix" or mix is not None:
            yield "corpus.mix is empty: list corpora, as in corpus.mix=[stories,files]"
        return
    if name != "mix":
        yield f"corpus.mix is set, but corpus.name is {name}: set it to mix, or corpus.mix to null"
        return
    yield from mix_conflicts(mix, params.corpus.files.path)
    if params.train.max_train_tokens:
        yield (
            "train.max_train_tokens takes the first tokens, which are all of the first corpus of "
            "corpus.mix: set it to null, or give the corpora smaller weights"
        )
    if params.model.kind == "bigram" and any(each.share or each.weight for each in mix):
        yield (
            "model.kind is bigram, which counts each text once: remove the weights and shares of "
            "corpus.mix"
        )


def _model_conflicts(model: ModelParams, formats: Sequence[str]) -> Iterator[str]:
    window, context = model.window, model.context_length
    if model.kind in ("decoder", "encoder_decoder"):
        width, heads, key_heads = model.d_model, model.n_head, model.n_kv_head
        fix = f"try model.d_model={fitting_width(model.model_dump(), formats)}"
        size = model.d_head or width // heads
        if width % heads and not model.d_head:
            yield f"model.d_model ({width}) is not divisible by model.n_head ({heads}): {fix}"
        elif model.positions == "rope" and size % 2:
            key = "model.d_head" if model.d_head else "model.d_model / model.n_head"
            fix = f"try model.d_head={size + 1}" if model.d_head else fix
            yield f"{key} is {size}: RoPE rotates pairs, so the head size must be even: {fix}"
        elif model.positions == "rope" and not _is_even(turned := model.rotary_share * size):
            yield (
                f"model.rotary_share ({model.rotary_share:g}) of the {size} channels of a head is "
                f"{turned:g}: RoPE rotates pairs, so make it an even number: try "
                f"model.rotary_share={max(2, 2 * round(turned / 2)) / size:.6g}"
            )
        if heads % key_heads:
            yield f"model.n_head ({heads}) is not divisible by model.n_kv_head ({key_heads})"
        if model.positions == "sinusoidal" and width % 2:
            yield f"model.d_model is {width}: sinusoids come in pairs, so make it even: {fix}"
        if model.bias in ("norm", "qkv_norm") and model.norm == "rmsnorm":
            without = "qkv" if model.bias == "qkv_norm" else "false"
            yield (
                f"model.bias is {model.bias}, and RMSNorm has no biases: set model.bias={without}, "
                "or model.norm=layernorm"
            )
        yield from _rope_conflicts(model)
    if model.kind == "decoder" and window and window >= context:
        yield f"model.window ({window}) must be less than model.context_length ({context}), or null"
    if model.kind == "encoder_decoder" and window:
        yield f"model.window is {window}: an encoder-decoder has no window; set it to null"
    if model.kind == "two_layer" and not 0 < (window or 0) <= context:
        yield (
            f"model.window is {window or 'null'}: the two-layer network reads this many tokens, so "
            f"give 1 to {context}, such as model.window=8"
        )


ROPE_OFF = {  # values of options that only RoPE uses
    "rope_scaling": 1.0,
    "rope_scaling_kind": "linear",
    "rope_scaling_context": None,
    "rope_scaling_rotations": None,
    "rotary_share": 1.0,
    "no_rope_every": None,
}


def _rope_conflicts(model: ModelParams) -> Iterator[str]:
    if model.positions != "rope":
        for key, off in ROPE_OFF.items():
            if (value := getattr(model, key)) != off:
                off = "null" if off is None else off
                yield (
                    f"model.{key} is {_plain(value)} without RoPE: set it to {off}, or set "
                    "model.positions=rope"
                )
        return
    kind, context, turns = (
        model.rope_scaling_kind,
        model.rope_scaling_context,
        model.rope_scaling_rotations,
    )
    if kind == "linear":
        for key in ("rope_scaling_context", "rope_scaling_rotations"):
            if (value := getattr(model, key)) is not None:
                yield (
                    f"model.{key} is {_plain(value)}, which model.rope_scaling_kind=linear does "
                    "not use: set it to null, or the kind to llama3 or yarn"
                )
    elif model.rope_scaling == 1:
        yield (
            f"model.rope_scaling_kind is {kind}, and model.rope_scaling is 1, which is off: set a "
            "factor such as model.rope_scaling=8, or model.rope_scaling_kind=linear"
        )
    elif context is None:
        before = max(1, round(model.context_length / model.rope_scaling))
        yield (
            f"model.rope_scaling_kind is {kind}: set model.rope_scaling_context to the context "
            f"length before scaling, such as {before}"
        )
    if turns and turns[0] >= turns[1]:
        yield (
            f"model.rope_scaling_rotations is {_plain(turns)}: the first must be less than the "
            "second; null is the usual choice"
        )
    if kind == "yarn" and model.rope_theta == 1:
        yield "model.rope_theta is 1: yarn needs more, such as model.rope_theta=10000"
    if (every := model.no_rope_every) == 1:
        yield "model.no_rope_every is 1, so no block has positions: set model.positions=none"
    elif every and every > model.n_layer:
        yield (
            f"model.no_rope_every is {every}, and model.n_layer is {model.n_layer}, so every block "
            "has positions: set model.no_rope_every=null"
        )


def _plain(value: object) -> str:
    """Format a value as in params.yaml."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_even(number: float) -> bool:
    """Return True for an even number from 2 on; rounding as in 0.3333 * 24 is fine."""
    nearest = round(number)
    return nearest >= 2 and nearest % 2 == 0 and abs(number - nearest) < 1e-3


def _clean_conflicts(clean: CleanParams) -> Iterator[str]:
    if clean.separator and clean.documents not in ("auto", "separator"):
        yield (
            f"clean.separator is {clean.separator!r}, and clean.documents is {clean.documents}: "
            "add clean.documents=separator, or clean.separator=null"
        )


def _lora_conflicts(params: Params, root: Path) -> Iterator[str]:
    train, model = params.train, params.model
    rank, targets = f"train.lora.rank is {train.lora.rank}", train.lora.targets
    if is_empty(root / train.start):
        yield (
            f"{rank}, and train.start={train.start} is empty: LoRA changes given weights a little; "
            "start from a model (`atlas preset base lora`), or set train.lora.rank=null"
        )
    if model.kind not in ("decoder", "encoder_decoder"):
        yield f"{rank}, and model.kind is {model.kind}: LoRA needs a transformer"
    elif "gate" in targets and model.feed_forward not in GATED:
        others = [target for target in get_args(LoraTarget) if target != "gate"]
        yield (
            f"train.lora.targets names gate, and model.feed_forward={model.feed_forward} has none: "
            f"this model has {', '.join(others)}"
        )
    if train.freeze:
        yield (
            f"{rank}, and train.freeze is not empty: LoRA freezes all given weights; set "
            "train.freeze=[] and choose layers with train.lora.targets"
        )
    if train.optimizer == "muon":
        yield (
            f"{rank}, and train.optimizer is muon, which is for whole matrices, not for their "
            "factors: set train.optimizer=adamw"
        )


def _document_mask_conflicts(params: Params) -> Iterator[str]:
    tokenize, kind = params.tokenize, params.model.kind
    if not tokenize.document_mask:
        return
    if tokenize.windows == "padded":
        yield (
            "tokenize.document_mask is for packed windows; padded ones hold one document each: set "
            "one of tokenize.windows=packed and tokenize.document_mask=false"
        )
    if kind != "decoder":
        yield (
            f"tokenize.document_mask masks attention, and model.kind is {kind}: set "
            "model.kind=decoder or tokenize.document_mask=false"
        )


def _question_conflicts(params: Params) -> Iterator[str]:
    tokenize, separator = params.tokenize, params.tokenize.prompt_separator
    if separator and params.chat.template:
        yield (
            "tokenize.prompt_separator and chat.template both say what is learned: set one of them "
            "to null"
        )
    if separator and not (tokenize.windows == "padded" and tokenize.separate_documents):
        yield (
            "tokenize.prompt_separator needs a window and an end-of-text token for each question: "
            "add tokenize.windows=padded tokenize.separate_documents=true"
        )
    if params.model.kind != "encoder_decoder":
        return
    if not separator:
        yield (
            "model.kind is encoder_decoder, and tokenize.prompt_separator is null: name the piece "
            "that ends a question, as in tokenize.prompt_separator='=' tokenize.windows=padded"
        )
    elif any(separator not in prompt for prompt in params.evaluate.prompts):
        yield (
            "evaluate.prompts: an encoder-decoder answers questions, so end each with "
            f"{separator!r}, or set [] for questions of val"
        )
