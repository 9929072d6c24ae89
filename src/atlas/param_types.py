"""The types of the values in params.yaml."""

import contextlib
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from atlas.formats import known_format


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
