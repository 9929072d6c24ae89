"""Numbers as people read them."""

import re

from atlas.tools.report.reading import Value

UNITS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
MINUTE, HOUR = 60, 3600


def rough(value: float) -> str:
    """A number for a headline: 1,000,576 is 1 M."""
    for size, unit in UNITS:
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def compact(value: float) -> str:
    """A number for an axis or a bar: whole below a hundred thousand, then 120 k."""
    if 1e3 <= abs(value) < 1e5:
        return f"{value:,.0f}"
    for size, unit in UNITS:
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def exact(value: Value) -> str:
    """A number for a table: whole ones in full, others with four digits; a text as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 1e15:
            return f"{int(value):,}"
        return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:#.4g}".rstrip(".")
    return value


def cell(text: str) -> str:
    """A cell of a table: a number as ``exact`` reads it, anything else (007, 1_000) as it is."""
    if not NUMBER.fullmatch(text):
        return text
    return exact(float(text) if set(text) & set(".eE") else int(text))


def percent(share: float) -> str:
    """A share as percents, with a digit more where it is small."""
    value = 100 * share
    return f"{value:.3g} %" if abs(value) < 10 else f"{value:.1f} %"


def signed_percent(change: float) -> str:
    """A change as percents."""
    value = 100 * change
    return f"{value:+.0f} %" if abs(value) >= 10 else f"{value:+.2g} %"


def size(count: float) -> str:
    """Bytes, in the unit that fits."""
    for unit, divisor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= divisor:
            return f"{count / divisor:.3g} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float) -> str:
    """Seconds, in the unit that fits."""
    whole = round(seconds)
    if whole < MINUTE:
        return f"{seconds:.3g} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    return f"{whole // HOUR:,} h {whole % HOUR // MINUTE} min"


def title_of(name: str) -> str:
    """A title from the name of a file: attention_layer_1 is Attention layer 1."""
    words = name.replace("_", " ").replace("-", " ").strip() or "picture"
    return words[0].upper() + words[1:]
