"""The formats in which a model can be exported, and what they ask of its widths."""

from collections.abc import Iterable
from typing import Literal

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
WHOLE = ("f32", "f16", "bf16")  # each value by itself
ROW = 32  # values of a row that share a scale in any other
K_ROW = 256  # that do in a K type


def quantised(formats: Iterable[GgufFormat]) -> list[GgufFormat]:
    """Those in which values share a scale, so that rows must be multiples of ``ROW``."""
    return [each for each in formats if each not in WHOLE]


def has_k_types(name: str) -> bool:
    """Whether a format is a mix of K types (``q4_k_m``), or a type is one (``q4_k``)."""
    return "_k" in name
