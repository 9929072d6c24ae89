"""Params by dotted key, as ``dvc exp run -S`` takes them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_:./-]*")  # text that needs no quotes in an override
KEYWORDS = {"true", "false", "null", "nan", "inf"}  # text that would be read as something else


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each leaf of nested mappings as its dotted key and value."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def override(value: Any) -> str:
    """Format a value in the syntax of ``dvc exp run -S``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(override(item) for item in value)}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{override(item)}' for key, item in value.items())}}}"
    if isinstance(value, str) and not (PLAIN.fullmatch(value) and value.lower() not in KEYWORDS):
        return _quoted(value)
    return repr(float(value)) if isinstance(value, float) else str(value)


def _quoted(text: str) -> str:
    r"""Quote a text for Hydra, where a backslash is special only before a quote."""
    text = re.sub(r'(\\*)"', r'\1\1\\"', text)
    text = re.sub(r"(\\+)$", r"\1\1", text)
    return f'"{text}"'
