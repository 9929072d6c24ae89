"""Format numbers and names for the page; the templates use these functions as filters."""

import re
from collections.abc import Callable
from typing import Any

UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
MINUTE, HOUR = 60, 3600


def exact(value: Any) -> str:
    """A value for a table: whole numbers in full, others to four digits, "" for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value != value:
        return ""
    if isinstance(value, int) or (
        isinstance(value, float) and abs(value) < 1e15 and value % 1 == 0
    ):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:#.4g}".rstrip(".")
    return str(value)


def cell(value: Any, column: str) -> str:
    """A table cell: shares as percentages, sizes in bytes, other values as `exact` does."""
    numeric = isinstance(value, int | float) and value == value
    return FORMATS[column](value) if numeric and column in FORMATS else exact(value)


def spaced(name: str) -> str:
    """The name of a metric or column in words: q8_0_tokens_per_second is "q8_0 tokens/s"."""
    return re.sub(r"_(?!\d)", " ", name.replace("_per_second", "/s"))


def compact(value: float) -> str:
    """A number for an axis or a headline: in full below a hundred thousand, then 120k."""
    if abs(value) >= 1e5:
        size, unit = next((size, unit) for size, unit in UNITS if abs(value) >= size)
        return f"{value / size:.4g}{unit}"
    return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:.4g}"


def percent(share: float, sign: str = "") -> str:
    """A share as a percentage, with more digits close to 100; `sign="+"` marks increases."""
    value = 100 * share
    digits = ",.0f" if abs(value) >= 1e3 else ".4g" if 99 < value < 100 else ".3g"
    return f"{value:{sign}{digits}}%"


def size(count: float) -> str:
    """A number of bytes in a fitting unit."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= divisor:
            return f"{count / divisor:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """A time in fitting units."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{seconds:.3g} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR:,} h {whole % HOUR // MINUTE} min"


def title_case(name: str) -> str:
    """A heading made from a file name: attention_layer-1 is "Attention layer 1"."""
    words = name.replace("_", " ").replace("-", " ").strip() or "Picture"
    return words[0].upper() + words[1:]


FORMATS: dict[str, Callable[[float], str]] = {
    "accuracy": percent,
    "share": percent,
    "top_1_agreement": percent,
    "bytes": size,
}
