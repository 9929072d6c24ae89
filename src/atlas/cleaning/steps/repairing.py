"""Mojibake undone: UTF-8 that somebody read in another encoding and stored so.

An apostrophe is then ``â€™``. ftfy finds and undoes that; nothing else that it can do is done, so
quotes and dashes stay as they are. Its check is slow, and the longer a text the likelier a false
alarm, so it sees only lines that hold what could be such a pair of characters.
"""

import re
from functools import cache

# The encodings that ftfy looks through; Python names those of Windows without holes "sloppy".
MISREAD_AS = (
    "latin-1",
    "cp1252",
    "cp1251",
    "cp1250",
    "cp1253",
    "cp1254",
    "cp1257",
    "iso-8859-2",
    "mac-roman",
    "cp437",
)
# Bytes of a character in UTF-8: the first ones of Latin, Greek, Cyrillic, Hebrew, Arabic, Indic,
# punctuation, Chinese, Japanese, Korean, and emoji. Others would match ordinary French and Russian.
FIRST_BYTES = bytes.fromhex("c2c3c4c5 cecfd0d1 d7d8d9dadb e0 e2 e3e4e5e6e7e8e9 eaebeced ef f0")
CYRILLIC_FIRST_BYTES = bytes.fromhex("c2c3 d0d1 e2")  # In cp1251 others are everyday letters.
FURTHER_BYTES = bytes(range(0x80, 0xC0))
A0_MADE_BLANK = re.compile("[ÂÃ] ")  # a no-break space is often stored as a plain one
# Windows-1252 has no 9D, so that byte is often lost from a closing quote (E2 80 9D). What is left
# stands where such a quote may: before a blank, punctuation or the end of the line.
QUOTE_WITHOUT_9D = re.compile(r"â€(?=[\s.,;:!?)\]}\"'*_-]|$)")
CLOSING_QUOTE = "â€\x9d"


def repair(text: str) -> tuple[str, int]:
    """Undoes mojibake, line by line.

    Returns:
        The text, and how many of its lines were repaired. A line without mojibake is unchanged.
    """
    if text.isascii():
        return text, 0
    parts = []
    repaired = done = 0
    suspicious = _suspicious(blanks=A0_MADE_BLANK.search(text) is not None)
    while match := suspicious.search(text, done):
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.end())
        end = len(text) if end < 0 else end
        line = text[start:end]
        fixed = _repair_line(line)
        repaired += fixed != line
        parts += [text[done:start], fixed]
        done = end
    return "".join([*parts, text[done:]]), repaired


def _repair_line(line: str) -> str:
    from ftfy import fix_encoding  # slow to import, and most corpora never need it

    fixed = fix_encoding(QUOTE_WITHOUT_9D.sub(CLOSING_QUOTE, line), fix_c1_controls=False)
    # Several characters become one, or a lost A0 comes back; else ftfy has only taken control
    # characters (U+0085 is a line end) for those of Windows-1252.
    undone = len(fixed) < len(line) or A0_MADE_BLANK.search(line)
    return fixed if undone else line


@cache
def _suspicious(blanks: bool) -> re.Pattern[str]:
    """Pairs of characters that the first two bytes of a UTF-8 sequence are misread as.

    A text without A0 made blank is searched without ``blanks``, which is much faster.
    """
    pairs = [
        (
            _read(CYRILLIC_FIRST_BYTES if name == "cp1251" else FIRST_BYTES, name),
            _read(FURTHER_BYTES, name),
        )
        for name in MISREAD_AS
    ]
    either = [f"[{''.join(first)}][{''.join(further)}]" for first, further in pairs]
    # Any first before any further character: one quick look that spares nearly all of the text
    # the search through one encoding after the other.
    anything = "".join(
        f"[{''.join(sorted({c for part in parts for c in part}))}]"
        for parts in zip(*pairs, strict=True)
    )
    blank = f"|{A0_MADE_BLANK.pattern}" if blanks else ""
    return re.compile(f"(?={anything})(?:{'|'.join(either)}){blank}")


def _read(values: bytes, encoding: str) -> list[str]:
    """What bytes are read as, escaped; an undefined one as the control character of its number."""
    return [
        re.escape(bytes([value]).decode(encoding, errors="ignore") or chr(value))
        for value in values
    ]
