"""Pages of HTML that need no network: their template, their style, and how text and numbers look.

A page is a template that extends ``page.html.j2``.
"""

import os
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined

HERE = Path(__file__).parent
CONTROLS = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"}
CONTROL_PICTURES = str.maketrans(CONTROLS | {0x7F: 0x2421})
# C1 controls, overrides of the direction of writing, surrogates, and what is no character.
NOT_SHOWN = re.compile("[\x80-\x9f\u202d\u202e\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def page_environment(folder: Path) -> Environment:
    """Return an environment for the templates of a folder; values never become markup."""
    cache = folder / "__pycache__"  # compiled templates, like compiled modules
    environment = Environment(
        loader=FileSystemLoader([folder, HERE]),
        bytecode_cache=FileSystemBytecodeCache(str(cache)) if os.access(cache, os.W_OK) else None,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: readable(value) if type(value) is str else value,
        extensions=["jinja2.ext.do"],
    )
    environment.filters["exact"] = environment.globals["exact"] = exact
    return environment


def readable(text: str) -> str:
    """Make a text safe to print: ␀ for control characters, U+FFFD for what can't be shown."""
    return NOT_SHOWN.sub("\ufffd", text.replace("\r\n", "\n").translate(CONTROL_PICTURES))


def exact(value: Any) -> str:
    """A value for a table: whole numbers in full, others to four digits, "" for none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value != value:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if abs(value) < 1e15 and value % 1 == 0:
            return f"{int(value):,}"
        return f"{value:,.0f}" if abs(value) >= 1e3 else f"{value:#.4g}".rstrip(".")
    return str(value)
