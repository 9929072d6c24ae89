"""What a model cannot be exported as, told before any work is done."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from atlas.architectures.expressible import combination, fitting, nearest_change
from atlas.architectures.hugging_face import CLASSES, class_of
from atlas.architectures.llama_cpp import ARCHITECTURES, architecture_of
from atlas.formats import GGUF, HUGGING_FACE, ONNX, ROW, TORCH, gguf_formats, quantised

if TYPE_CHECKING:
    from atlas.params import ModelParams

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
