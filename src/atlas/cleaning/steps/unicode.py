"""One text, one form: line ends, control and invisible characters, Unicode composition.

Each step takes a text and returns it with the number of changes. Most texts need none of them, so
each one first asks whether there is anything to do, which costs next to nothing.

Mojibake undone: UTF-8 that somebody read in another encoding and stored so.

An apostrophe is then ``â€™``. ftfy finds and undoes that; nothing else that it can do is done, so
quotes and dashes stay as they are. Its check is slow, and the longer a text the likelier a false
alarm, so it sees only lines that hold what could be such a pair of characters.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache

from atlas.params.schema import CleanParams

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


Step = Callable[[str], tuple[str, int]]

OTHER_LINE_ENDS = "\r\v\f\x85\u2028\u2029"
SURROGATE = re.compile("[\ud800-\udfff]")
# C0 and C1 but tab and line end, DEL, and the code points that are no characters. Those beyond
# FFFF stand by themselves: in one class with the others they would slow down every text.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
BEYOND_FFFF = re.compile("[\U00010000-\U0010ffff]")
NONCHARACTER_BEYOND_FFFF = re.compile(
    "["
    + "".join(f"{chr(end - 2)}{chr(end - 1)}" for end in range(0x20000, 0x110001, 0x10000))
    + "]"
)
# Soft hyphen, zero-width space, word joiner, byte order mark, and the marks of direction.
INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
# Scripts whose letters a joiner or non-joiner gives another shape (Unicode 16, sections 9.2, 12.1
# and 23.2): Arabic to Mandaic, the Indic ones, Tibetan, Myanmar, Khmer, Mongolian, Javanese.
SHAPED = (
    "\u0620-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1b00-\u1bff\ua840-\ua8ff\ua980-\ua9ff"
    "\uaa60-\uaa7f\U00011000-\U000114ff"
)
VIRAMA = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u1039\u103a\u17d2"
# Arrows, signs and pictures that emoji are made of, with variation selector and skin tones.
PICTURE = (
    "\u2190-\u21ff\u2300-\u2328\u232b-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
)
AFTER_VIRAMA = f"(?<=[{VIRAMA}])[\u200c\u200d]"
BETWEEN_LETTERS = f"(?<=[{SHAPED}])[\u200c\u200d](?=[{SHAPED}])"
WITHIN_EMOJI = f"(?<=[{PICTURE}])\u200d(?=[{PICTURE}])"
NEEDLESS_JOINER = re.compile(f"(?!{AFTER_VIRAMA}|{BETWEEN_LETTERS}|{WITHIN_EMOJI})[\u200c\u200d]")


def normalise(text: str, clean: CleanParams, changes: Counter[str]) -> str:
    r"""Brings a document into its one form; a second time changes nothing.

    Every line end becomes ``\n``, half a surrogate pair U+FFFD (it has no place in UTF-8);
    the rest is as ``clean`` says.

    Args:
        text: the document.
        clean: which steps to take.
        changes: counts what each step changed, under its name; added to.
    """
    steps = _steps(clean)
    while steps:
        for step in steps:
            text, count = step(text)
            if count:
                changes[step.__name__] += count
        # Composing also sorts accents, and a joiner that now stands behind others may go.
        sorted_anew = count and step is compose and zero_width in steps
        steps = [zero_width, compose] if sorted_anew else []
    return text


def _steps(clean: CleanParams) -> list[Step]:
    """The steps to take. What is removed may part characters that compose, so that comes last."""
    steps: list[Step] = [line_ends, surrogates]
    if clean.control_characters == "remove":
        steps.append(control_characters)
    if clean.zero_width == "remove":
        steps.append(zero_width)
    if clean.unicode == "NFC":
        steps.append(compose)
    return steps


def line_ends(text: str) -> tuple[str, int]:
    r"""Makes every line end of Unicode a ``\n``: CR LF, CR, VT, FF, U+0085, U+2028, U+2029."""
    changed = 0
    for end in ("\r\n", *OTHER_LINE_ENDS):
        if end in text:
            changed += text.count(end)
            text = text.replace(end, "\n")
    return text, changed


def surrogates(text: str) -> tuple[str, int]:
    """Puts U+FFFD in the place of halves of surrogate pairs, which UTF-8 cannot hold."""
    return (text, 0) if text.isascii() else SURROGATE.subn("\ufffd", text)


def control_characters(text: str) -> tuple[str, int]:
    """Removes control characters but tabs and line ends, and what Unicode calls noncharacters."""
    text, removed = CONTROL.subn("", text)
    if not text.isascii() and BEYOND_FFFF.search(text):
        text, noncharacters = NONCHARACTER_BEYOND_FFFF.subn("", text)
        removed += noncharacters
    return text, removed


def zero_width(text: str) -> tuple[str, int]:
    """Removes characters that take no room, and that a reader cannot know of.

    Joiners stay where they give letters their shape (Persian, Hindi) or make one emoji of many.
    """
    if text.isascii():
        return text, 0
    text, removed = INVISIBLE.subn("", text)
    if "\u200c" in text or "\u200d" in text:
        text, joiners = NEEDLESS_JOINER.subn("", text)
        removed += joiners
    return text, removed


def compose(text: str) -> tuple[str, int]:
    """Composes letters and their accents (NFC); 1 if that changed the text."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text, 0
    return unicodedata.normalize("NFC", text), 1


def storable(text: str) -> str:
    """A text without halves of surrogate pairs, which have no place in UTF-8."""
    return surrogates(text)[0]
