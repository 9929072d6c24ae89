"""One text, one form: line ends, Unicode composition, control characters. Each change counted."""

import re
import unicodedata
from collections import Counter

from atlas.params import CleanParams

LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ufeff]")
SURROGATE = re.compile("[\ud800-\udfff]")


def normalise(text: str, clean: CleanParams, changes: Counter[str]) -> str:
    r"""Brings a document into its one form.

    Every line end becomes ``\n``, half a surrogate pair U+FFFD (it has no place in UTF-8);
    the rest is as ``clean`` says.

    Args:
        text: the document.
        clean: which steps to take.
        changes: counts how often each step changed something; added to.
    """
    text, changes["line_ends"] = _substitute(LINE_ENDS, "\n", text, changes["line_ends"])
    text, changes["surrogates"] = _substitute(SURROGATE, "\ufffd", text, changes["surrogates"])
    if clean.control_characters == "remove":
        text, changes["control_characters"] = _substitute(
            CONTROL, "", text, changes["control_characters"]
        )
    if clean.unicode == "NFC" and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
        changes["documents_composed"] += 1
    return text


def storable(text: str) -> str:
    """A text without halves of surrogate pairs, which have no place in UTF-8."""
    return SURROGATE.sub("\ufffd", text)


def _substitute(pattern: re.Pattern[str], new: str, text: str, count: int) -> tuple[str, int]:
    text, found = pattern.subn(new, text)
    return text, count + found
