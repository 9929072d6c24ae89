"""The rules of params.yaml that join several keys."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from atlas.export_rules import export_conflicts, fitting_width

if TYPE_CHECKING:
    from atlas.params import Params

BYTES = 256
# Pieces that each kind has before any of the text: unknown, end of text, padding, line end, tab.
FIXED_PIECES = {"bpe": 5 + BYTES, "char": 5 + BYTES, "unigram": 5, "word": 4}


def conflicts(params: "Params") -> Iterator[str]:
    """What no key can be blamed for alone, a line each that names the keys and a way out."""
    clean, tokenizer = params.clean, params.tokenizer
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
    yield from _model_conflicts(params)
    if train.batch_size % train.accumulation:
        yield (
            f"train.batch_size ({train.batch_size}) is not divisible by "
            f"train.accumulation ({train.accumulation})"
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
    if model.kind == "decoder" and model.window >= model.context_length:
        yield (
            f"model.window ({model.window}) leaves nothing out of model.context_length "
            f"({model.context_length}): give 0, or less"
        )
    if model.kind == "encoder_decoder" and model.window:
        yield f"model.window is {model.window}: an encoder-decoder sees all, so give 0"
    if model.kind == "encoder_decoder":
        yield from _question_conflicts(params)
    if model.kind == "two_layer" and not 0 < model.window <= model.context_length:
        yield (
            f"model.window is {model.window}: the two-layer network reads so many tokens, so give "
            f"1 to {model.context_length}, such as model.window=8"
        )
    if params.train.init == "zero" and model.norm_place == "post":
        yield (
            "train.init is zero with model.norm_place=post, whose norms change the stream anyway: "
            "give train.init=scaled, or model.norm_place=pre"
        )
    tokenize = params.tokenize
    if tokenize.answer_after and not (tokenize.windows == "padded" and tokenize.separate_documents):
        yield (
            "tokenize.answer_after wants each question in a window of its own, and its end: add "
            "tokenize.windows=padded tokenize.separate_documents=true"
        )


def _question_conflicts(params: "Params") -> Iterator[str]:
    end = params.tokenize.answer_after
    if not end:
        yield (
            'model.kind is encoder_decoder, and tokenize.answer_after is "": name the piece that '
            "ends a question, as in tokenize.answer_after='=' tokenize.windows=padded"
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
