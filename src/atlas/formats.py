"""The formats in which a model can be exported, and what they ask of its widths."""

import difflib
from collections.abc import Iterable
from typing import Literal, cast, get_args

GgufFormat = Literal[
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q6_k",
    "q5_k_m",
    "q5_k_s",
    "q5_1",
    "q5_0",
    "q4_k_m",
    "q4_k_s",
    "q4_1",
    "q4_0",
    "q3_k_l",
    "q3_k_m",
    "q3_k_s",
    "q2_k",
]
GGUF = "gguf:"
HUGGING_FACE, ONNX, TORCH = "hugging_face", "onnx", "torch"
FORMATS = (*(f"{GGUF}{name}" for name in get_args(GgufFormat)), HUGGING_FACE, ONNX, TORCH)
WHOLE = ("f32", "f16", "bf16")  # each value by itself
ROW = 32  # values of a row that share a scale in any other
K_ROW = 256  # that do in a K type


def known_format(name: str) -> str:
    """The name of a format, if it is one.

    Raises:
        ValueError: it is none; says which there are.
    """
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ValueError(f"one of {', '.join(FORMATS)}{hint}")
    return name


def gguf_formats(formats: Iterable[str]) -> list[GgufFormat]:
    """Those of GGUF files, without their prefix."""
    return [cast(GgufFormat, name.removeprefix(GGUF)) for name in formats if name.startswith(GGUF)]


def quantised(formats: Iterable[str]) -> list[str]:
    """Those in which values share a scale, so that rows must be multiples of ``ROW``."""
    return [f"{GGUF}{name}" for name in gguf_formats(formats) if name not in WHOLE]


def has_k_types(name: str) -> bool:
    """Whether a format is a mix of K types (``q4_k_m``), or a type is one (``q4_k``)."""
    return "_k" in name
