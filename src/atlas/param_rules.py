"""The rules of params.yaml that join several keys."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from atlas.architectures import architecture_of, nearest_change

if TYPE_CHECKING:
    from atlas.params import Params

MAIN_OPTIONS = ("positions", "norm", "feed_forward")
BYTES = 256
# Pieces that each kind has before any of the text: unknown, end of text, padding, line end, tab.
FIXED_PIECES = {"bpe": 5 + BYTES, "char": 5 + BYTES, "unigram": 5, "word": 4}
Q8_0_ROW = 32  # values that share a scale


def conflicts(params: "Params") -> Iterator[str]:
    """What no key can be blamed for alone, a line each that names the keys and a way out."""
    clean, tokenizer, model = params.clean, params.tokenizer, params.model
    train, export = params.train, params.export
    if len(set(params.corpus.books)) < len(params.corpus.books):
        yield f"corpus.books names a book twice: {', '.join(map(str, params.corpus.books))}"
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


def _export_conflicts(params: "Params") -> Iterator[str]:
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


def _fitting_width(params: "Params") -> int:
    """The next d_model that suits the heads, RoPE and the formats of the export, all at once."""
    head_multiple = params.model.n_head * (2 if params.model.positions == "rope" else 1)
    row_multiple = Q8_0_ROW if "q8_0" in params.export.formats else 1
    return _round_up(params.model.d_model, math.lcm(head_multiple, row_multiple))


def _round_up(value: int, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
