"""The rules of params.yaml that join several keys.

What a model cannot be exported as, told before any work is done.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from atlas.params.runtime_support import (
    ARCHITECTURES,
    CLASSES,
    GGUF,
    HUGGING_FACE,
    ONNX,
    ROW,
    TORCH,
    architecture_of,
    class_of,
    combination,
    fitting,
    gguf_formats,
    nearest_change,
    quantised,
)

if TYPE_CHECKING:
    from atlas.params.schema import ModelParams

MIN_HEAD = 2  # channels; llama.cpp ends itself at a head of one


def export_conflicts(model: "ModelParams", formats: Sequence[str]) -> Iterator[str]:
    """Why a model does not fit some formats, each with the nearest that does."""
    if len(set(formats)) < len(formats):
        yield f"a format is named twice: {', '.join(formats)}"
    options = model.model_dump()
    runtimes = {
        "llama.cpp": (ARCHITECTURES, [name for name in formats if name.startswith(GGUF)]),
        "transformers": (CLASSES, [name for name in formats if name == HUGGING_FACE]),
    }
    for runtime, (rows, named) in runtimes.items():
        if named and fitting(rows, options) is None:
            yield (
                f"{runtime} runs no model with {combination(options)}; nearest: "
                f"{nearest_change(rows, options)}; or leave {', '.join(named)} out"
            )
    programs = [name for name in formats if name in (ONNX, TORCH)]
    if programs and model.kind != "decoder":
        yield (
            f"{programs[0]} holds decoders, and model.kind is {model.kind}: "
            f"leave {', '.join(programs)} out"
        )
    yield from _head_size_conflicts(model, formats)
    yield from _row_conflicts(model, formats)


def fitting_width(model: "ModelParams", formats: Sequence[str]) -> int:
    """The next d_model that suits heads, positions and the formats, all at once."""
    multiples = [
        model.n_head * (2 if model.positions == "rope" else 1),
        2 if model.positions == "sinusoidal" else 1,
        ROW if quantised(formats) else 1,
    ]
    return _round_up(model.d_model, math.lcm(*multiples))


def _head_size_conflicts(model: "ModelParams", formats: Sequence[str]) -> Iterator[str]:
    """RoPE that is scaled down to nothing needs pairs of channels as well."""
    if model.positions == "rope" or model.d_model % model.n_head:
        return
    size = model.d_model // model.n_head
    options = model.model_dump()
    architecture = architecture_of(options) if gguf_formats(formats) else None
    kind = class_of(options) if HUGGING_FACE in formats else None
    runtime = None
    if architecture and (size < MIN_HEAD or (architecture.rotates and size % 2)):
        runtime = f"llama.cpp's {architecture.name}"
    elif kind and kind.rotates and size % 2:
        runtime = f"transformers' {kind.name}"
    if runtime:
        yield (
            f"a head of {runtime} has an even number of channels, 2 or more, and "
            f"model.d_model / model.n_head is {size}: try "
            f"model.d_model={_round_up(model.d_model, 2 * model.n_head)}"
        )


def _row_conflicts(model: "ModelParams", formats: Sequence[str]) -> Iterator[str]:
    if not (packed := quantised(formats)):
        return
    widths = {
        "d_model": (model.d_model, fitting_width(model, formats)),
        "d_ff": (model.d_ff, _round_up(model.d_ff, ROW)),
    }
    for key, (value, fits) in widths.items():
        if value % ROW:
            yield (
                f"{packed[0]} packs rows of {ROW}, and model.{key} is {value}: try "
                f"model.{key}={fits} or leave {', '.join(packed)} out"
            )


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple


if TYPE_CHECKING:
    from atlas.params.schema import Params

BYTES = 256
# Pieces that each kind has before any of the text: unknown, end of text, padding, line end, tab.
FIXED_PIECES = {"bpe": 5 + BYTES, "char": 5 + BYTES, "unigram": 5, "word": 4}


def conflicts(params: "Params") -> Iterator[str]:
    """What no key can be blamed for alone, a line each that names the keys and a way out."""
    clean, tokenizer = params.clean, params.tokenizer
    train, export = params.train, params.export
    books = params.corpus.gutenberg.books
    if len(set(books)) < len(books):
        yield f"corpus.gutenberg.books names a book twice: {', '.join(map(str, books))}"
    if clean.val + clean.test >= 1:
        held_out = clean.val + clean.test
        yield f"clean.val + clean.test is {held_out:g}: below 1 something is left to train on"
    if len(set(clean.filters)) < len(clean.filters):
        yield f"clean.filters names a filter twice: {', '.join(clean.filters)}"
    fixed = FIXED_PIECES[tokenizer.kind]
    if tokenizer.vocab_size <= fixed:
        yield (
            f"tokenizer.vocab_size is {tokenizer.vocab_size}: {fixed} pieces of tokenizer.kind="
            f"{tokenizer.kind} are special{' or single bytes' if fixed > BYTES else ''}, so give "
            f"at least {fixed + 1}, and one more for each character of the text"
        )
    yield from _model_conflicts(params)
    if train.batch_size % train.grad_accum_steps:
        yield (
            f"train.batch_size ({train.batch_size}) is not divisible by "
            f"train.grad_accum_steps ({train.grad_accum_steps})"
        )
    if train.warmup_steps > train.steps and not train.epochs:
        yield (
            f"train.warmup_steps ({train.warmup_steps}) is more than train.steps ({train.steps}): "
            "the learning rate would never reach train.lr"
        )
    for problem in export_conflicts(params.model, export.formats):
        yield f"export.formats: {problem}"


def _model_conflicts(params: "Params") -> Iterator[str]:
    model = params.model
    if model.kind in ("decoder", "encoder_decoder"):
        yield from _head_conflicts(params)
        if model.rope_scaling != 1 and model.positions != "rope":
            yield (
                f"model.rope_scaling is {model.rope_scaling:g} with model.positions="
                f"{model.positions}: give 1.0, or model.positions=rope"
            )
        if model.positions == "sinusoidal" and model.d_model % 2:
            yield (
                f"model.d_model is {model.d_model}: sinusoids come in pairs, so it must be even: "
                f"try model.d_model={fitting_width(params.model, params.export.formats)}"
            )
    if model.kind == "decoder" and model.window and model.window >= model.context_length:
        yield (
            f"model.window ({model.window}) must be less than model.context_length "
            f"({model.context_length}), or null"
        )
    if model.kind == "encoder_decoder" and model.window:
        yield f"model.window is {model.window}: an encoder-decoder has none, so give null"
    if model.kind == "encoder_decoder":
        yield from _question_conflicts(params)
    if model.kind == "two_layer" and not 0 < (model.window or 0) <= model.context_length:
        yield (
            f"model.window is {model.window or 'null'}: the two-layer network reads this many "
            f"tokens, so give 1 to {model.context_length}, such as model.window=8"
        )
    if params.train.init == "zero" and model.norm_position == "post":
        yield (
            "train.init is zero with model.norm_position=post, whose norms change the stream "
            "anyway: give train.init=scaled, or model.norm_position=pre"
        )
    tokenize = params.tokenize
    if tokenize.prompt_separator and not (
        tokenize.windows == "padded" and tokenize.separate_documents
    ):
        yield (
            "tokenize.prompt_separator needs each question in a window of its own, and its end: "
            "add tokenize.windows=padded tokenize.separate_documents=true"
        )


def _question_conflicts(params: "Params") -> Iterator[str]:
    end = params.tokenize.prompt_separator
    if not end:
        yield (
            "model.kind is encoder_decoder, and tokenize.prompt_separator is null: name the piece "
            "that ends a question, as in tokenize.prompt_separator='=' tokenize.windows=padded"
        )
    elif any(end not in prompt for prompt in params.evaluate.prompts):
        yield (
            f"evaluate.prompts: an encoder-decoder answers questions, so let each hold {end!r}, or "
            "give [] for questions of val"
        )


def _head_conflicts(params: "Params") -> Iterator[str]:
    model = params.model
    if model.d_model % model.n_head:
        yield (
            f"model.d_model ({model.d_model}) is not divisible by model.n_head ({model.n_head}): "
            f"try model.d_model={fitting_width(params.model, params.export.formats)}"
        )
    elif model.positions == "rope" and (model.d_model // model.n_head) % 2:
        yield (
            f"model.d_model / model.n_head is {model.d_model // model.n_head}: "
            "RoPE rotates pairs, so the head size must be even: "
            f"try model.d_model={fitting_width(params.model, params.export.formats)}"
        )
    if model.n_head % model.n_kv_head:
        yield (
            f"model.n_head ({model.n_head}) is not divisible by model.n_kv_head "
            f"({model.n_kv_head}): each key head serves the same number of query heads"
        )
