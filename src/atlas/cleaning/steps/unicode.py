"""Bring text into canonical form: mojibake, line ends, control and invisible characters, NFC.

Each step takes a text and returns it with the number of changes. Most texts need no change, so
each step starts with a cheap check.

Mojibake is UTF-8 that was decoded in another encoding and stored that way: an apostrophe becomes
``â€™``. ftfy detects and undoes it; its other fixes are not used, so quotes and dashes stay as they
are. It is slow, and the longer a text, the more false alarms it raises, so it only sees lines with
a pair of characters that could be mojibake.
"""

import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from atlas.params.schema import CleanParams

# The encodings that ftfy tries (it calls the Windows ones "sloppy").
MISREAD_AS = (
    *("latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1257"),
    *("iso-8859-2", "mac-roman", "cp437"),
)
# UTF-8 lead bytes of Latin, Greek, Cyrillic, Hebrew, Arabic, Indic scripts, punctuation, Chinese,
# Japanese, Korean and emoji. Others would match ordinary French and Russian.
LEAD_BYTES = bytes.fromhex("c2c3c4c5 cecfd0d1 d7d8d9dadb e0 e2 e3e4e5e6e7e8e9 eaebeced ef f0")
CYRILLIC_LEAD_BYTES = bytes.fromhex("c2c3 d0d1 e2")  # in cp1251 the others are common letters
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))
A0_AS_SPACE = re.compile("[ÂÃ] ")  # the no-break space (A0) is often stored as a plain one
# Windows-1252 has no 9D, so a closing quote (E2 80 9D) often loses that byte. The rest only counts
# as a quote before whitespace, punctuation or the end of the line.
QUOTE_WITHOUT_9D = re.compile(r"â€(?=[\s.,;:!?)\]}\"'*_-]|$)")
CLOSING_QUOTE = "â€\x9d"


def fix_mojibake(text: str) -> tuple[str, int]:
    """Undo mojibake line by line; return the text and the number of repaired lines."""
    if text.isascii() or not (places := _find_mojibake(text)):
        return text, 0
    parts = []
    repaired = done = 0
    for place in places:
        if place < done:
            continue
        start = text.rfind("\n", 0, place) + 1
        end = text.find("\n", place)
        end = len(text) if end < 0 else end
        line = text[start:end]
        fixed = _fix_line(line)
        repaired += fixed != line
        parts += [text[done:start], fixed]
        done = end
    return "".join([*parts, text[done:]]), repaired


def _find_mojibake(text: str) -> list[int]:
    """Find pairs of characters that the first two bytes of a UTF-8 sequence are misread as."""
    first, second, either = _suspicious_pairs()
    codes = _codes(text)
    other = codes > MAX_ASCII
    places = np.flatnonzero(other[:-1] & other[1:])  # few in Latin text
    places = places[first[codes[places]] & second[codes[places + 1]]]
    found = [place for place in places.tolist() if either.match(text, place)]
    if "\u00c2 " in text or "\u00c3 " in text:
        found = sorted([*found, *(match.start() for match in A0_AS_SPACE.finditer(text))])
    return found


def _fix_line(line: str) -> str:
    from ftfy import fix_encoding  # slow to import and rarely needed

    fixed = fix_encoding(QUOTE_WITHOUT_9D.sub(CLOSING_QUOTE, line), fix_c1_controls=False)
    # Repaired mojibake is shorter, or has a lost A0 again. Otherwise ftfy only mistook control
    # characters (U+0085 is a line end) for letters and signs of Windows-1252.
    return fixed if len(fixed) < len(line) or A0_AS_SPACE.search(line) else line


@cache
def _suspicious_pairs() -> tuple[NDArray[np.bool_], NDArray[np.bool_], re.Pattern[str]]:
    """Return tables of the characters that occur first and second, and a pattern of the pairs."""
    leads = {name: CYRILLIC_LEAD_BYTES if name == "cp1251" else LEAD_BYTES for name in MISREAD_AS}
    first = [_misread(leads[name], name) for name in MISREAD_AS]
    second = [_misread(CONTINUATION_BYTES, name) for name in MISREAD_AS]
    tables = []
    for characters in (first, second):
        table = np.zeros(sys.maxunicode + 1, bool)
        table[list(map(ord, "".join(characters)))] = True
        tables.append(table)
    pairs = "|".join(
        f"[{re.escape(a)}][{re.escape(b)}]" for a, b in zip(first, second, strict=True)
    )
    return tables[0], tables[1], re.compile(pairs)


def _misread(values: bytes, encoding: str) -> str:
    """Decode each byte; an undefined byte becomes a control character."""
    decoded = (bytes([each]).decode(encoding, errors="ignore") or chr(each) for each in values)
    return "".join(decoded)


Step = Callable[[str], tuple[str, int]]

MAX_ASCII = 0x7F
SHORT = 1 << 12  # characters; below, Python is faster than NumPy
OTHER_LINE_ENDS = "\r\v\f\x85\u2028\u2029"
SURROGATE = re.compile("[\ud800-\udfff]")
NEXT_LINE = "\x85"
# C1 controls, and the characters that these bytes are in Windows-1252 (five are undefined).
WINDOWS_1252 = {
    code: character
    for code in range(0x80, 0xA0)
    if (character := bytes([code]).decode("cp1252", errors="ignore"))
}
C1_CONTROL = re.compile(f"[{''.join(map(chr, WINDOWS_1252))}]")
# An ellipsis comes before a space (not an indentation), punctuation, or the end of the text.
ELLIPSIS = re.compile(
    f"(?<!\r){NEXT_LINE}(?:$(?!\n)|(?=[ \u00a0](?! )|[\r\n.,;:!?)\\]\"'\u2019\u201d\u00bb-]))"
)
# ECMA-48: control sequences such as colors, control strings such as titles, and the other escapes
# that are common. Rarer ones could as well be text after a stray escape character.
ANSI_ESCAPE = re.compile(
    "\x1b(?:\\[[0-?]*[ -/]*[@-~]|[\\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\\\)|[()*+][AB012]|[78=>])"
)
# Bold and underlined letters of typewriters, printers and manual pages.
OVERSTRIKE = re.compile("_\b(?=[^\b\n])|([^\b\n])\b(?=\\1)|(?<=[^\b\n_])\b_")
# C0 and C1 except line ends and tab, DEL, and Unicode noncharacters. Those above FFFF have their
# own pattern: in one character class with the others they would slow down every text.
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufdd0-\ufdef\ufffe\uffff]")
ABOVE_FFFF = re.compile("[\U00010000-\U0010ffff]")
PLANE_ENDS = [f"{chr(end - 2)}{chr(end - 1)}" for end in range(0x20000, 0x110001, 0x10000)]
NONCHARACTER_ABOVE_FFFF = re.compile(f"[{''.join(PLANE_ENDS)}]")
SOFT_HYPHEN = "\u00ad"
BIDI_MARK = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Zero-width space, word joiner, byte order mark, deprecated format and annotation characters.
ZERO_WIDTH = re.compile("[\u200b\u2060\u206a-\u206f\ufeff\ufff9-\ufffb]")
# Scripts where a joiner or non-joiner changes the shape of letters (Unicode 16, sections 9.2,
# 12.1 and 23.2): Arabic to Mandaic, Indic, Tibetan, Myanmar, Khmer, Mongolian, Javanese.
CURSIVE = "\u0620-\u08ff\u1800-\u18af\ua840-\ua87f\U00010d00-\U00010d3f\U0001e900-\U0001e95f"
JOINING_SCRIPTS = (
    f"{CURSIVE}\u0900-\u0dff\u0f00-\u109f\u1780-\u17ff\u1b00-\u1bff\ua880-\ua8ff\ua980-\ua9ff"
    "\uaa60-\uaa7f\U00011000-\U000114ff"
)
VIRAMA = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u1039\u103a\u17d2"
# Arrows, symbols and pictographs that emoji consist of, with variation selector and skin tones.
EMOJI = (
    "\u2190-\u21ff\u2300-\u2328\u232b-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
)
JOINERS = "\u200c\u200d"
USEFUL_JOINERS = (
    f"(?<=[{VIRAMA}])[{JOINERS}]",
    f"(?<=[{JOINING_SCRIPTS}])[{JOINERS}](?=[{JOINERS}]*[{JOINING_SCRIPTS}])",
    f"(?<=[{CURSIVE}])\u200d",  # Persian abbreviations end in a letter that joins nothing
    f"\u200d(?=[{JOINERS}]*[{CURSIVE}])",
    f"(?<=[^\\s{JOINERS}])\u200c(?=[{JOINERS}]*[{CURSIVE}])",  # a Persian ending after a Latin name
    f"(?<=[{EMOJI}])\u200d(?=\u200d*[{EMOJI}])",
)
# Of several joiners in a row only the first can be useful.
USELESS_JOINER = re.compile(f"(?!(?<![{JOINERS}])(?:{'|'.join(USEFUL_JOINERS)}))[{JOINERS}]")
# Tag characters, except in emoji such as the flag of Wales.
TAGS = "\U000e0001\U000e0020-\U000e007f"
TAG_SEQUENCE = re.compile(f"([{EMOJI}][\U000e0020-\U000e007e]+\U000e007f)|[{TAGS}]")


def normalize(text: str, clean: CleanParams, changes: Counter[str]) -> str:
    r"""Bring a document into canonical form; doing it twice changes nothing more.

    Every line end becomes ``\n`` and every lone surrogate U+FFFD (UTF-8 can't encode it);
    ``clean`` selects the other steps. ``changes`` counts what each step did, under its name:
    characters that a step removes, or places where it rewrites the text.
    """
    if len(text) < SHORT and text.isascii() and text.replace("\n", "").isprintable():
        return text
    unusual = _unusual_characters(text)
    steps = [
        step
        for step, param, trigger in STEPS
        if trigger.search(unusual) and (param is None or getattr(clean, param))
    ]
    while steps:
        for step in steps:
            text, count = step(text)
            if count:
                changes[step.__name__] += count
        # NFC also reorders accents, after which a joiner may be useless.
        reordered = steps[-1] is compose and count and zero_width in steps
        steps = [zero_width, compose] if reordered else []
    return text


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _unusual_characters(text: str) -> str:
    r"""Return the distinct characters of a text except printable ASCII and ``\n``."""
    codes = np.frombuffer(text.encode(), np.uint8) if text.isascii() else _codes(text)
    first, others = codes.dtype.type(ord(" ")), codes.dtype.type(ord("~") - ord(" "))
    found = np.sort(codes[codes - first > others])  # unsigned: smaller ones wrap around
    found = found[np.concatenate(([True], found[1:] != found[:-1]))[: len(found)]]
    return "".join(map(chr, found.tolist())).replace("\n", "")


def c1_controls(text: str) -> tuple[str, int]:
    r"""Turn C1 controls into the characters that these bytes are in Windows-1252.

    Unicode text has no other use for them, except U+0085 as a line end. It is an ellipsis if the
    text has other C1 controls of this kind, or if more of them look like one than do not.
    """
    ends = text.count(NEXT_LINE)
    if ends and len(C1_CONTROL.findall(text)) == ends and 2 * len(ELLIPSIS.findall(text)) <= ends:
        return text, 0
    return C1_CONTROL.subn(lambda match: WINDOWS_1252[ord(match[0])], text)


def line_ends(text: str) -> tuple[str, int]:
    r"""Replace every Unicode line end with ``\n``: CR LF, CR, VT, FF, U+0085, U+2028, U+2029."""
    changed = 0
    for end in ("\r\n", *OTHER_LINE_ENDS):
        if end in text:
            changed += text.count(end)
            text = text.replace(end, "\n")
    return text, changed


def surrogates(text: str) -> tuple[str, int]:
    """Replace lone surrogates, which UTF-8 can't encode, with U+FFFD."""
    return (text, 0) if text.isascii() else SURROGATE.subn("\ufffd", text)


def ansi_escapes(text: str) -> tuple[str, int]:
    """Remove the escape sequences of terminals: colors, cursor movements, titles."""
    return _remove(ANSI_ESCAPE, text)


def overstrikes(text: str) -> tuple[str, int]:
    r"""Undo bold and underlined letters that were typed with backspaces: ``N\bN``, ``_\bN``."""
    return _remove(OVERSTRIKE, text)


def control_characters(text: str) -> tuple[str, int]:
    """Remove control characters except tabs and line ends, and Unicode noncharacters."""
    text, removed = CONTROL.subn("", text)
    if not text.isascii() and ABOVE_FFFF.search(text):
        text, noncharacters = NONCHARACTER_ABOVE_FFFF.subn("", text)
        removed += noncharacters
    return text, removed


def soft_hyphens(text: str) -> tuple[str, int]:
    """Remove soft hyphens, which show where a word may be divided."""
    return text.replace(SOFT_HYPHEN, ""), text.count(SOFT_HYPHEN)


def bidi_marks(text: str) -> tuple[str, int]:
    """Remove marks that only order right-to-left text on a screen."""
    return BIDI_MARK.subn("", text)


def zero_width(text: str) -> tuple[str, int]:
    """Remove zero-width spaces, byte order marks and other characters without width.

    Joiners stay where they shape letters (Persian, Hindi) or combine emoji, of several the first.
    """
    text, removed = ZERO_WIDTH.subn("", text)
    tagged = TAG_SEQUENCE.sub(r"\1", text)
    removed += len(text) - len(tagged)
    text, joiners = USELESS_JOINER.subn("", tagged)
    return text, removed + joiners


def compose(text: str) -> tuple[str, int]:
    """Compose letters and accents (NFC); the count is 1 if that changed the text."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text, 0
    return unicodedata.normalize("NFC", text), 1


def _remove(pattern: re.Pattern[str], text: str) -> tuple[str, int]:
    """Remove all matches; return the text and the number of characters."""
    kept = pattern.sub("", text)
    return kept, len(text) - len(kept)


# Each step, in order, the param that switches it on, and the characters that it is for.
STEPS: tuple[tuple[Step, str | None, re.Pattern[str]], ...] = (
    (c1_controls, "fix_mojibake", C1_CONTROL),
    (line_ends, None, re.compile(f"[{OTHER_LINE_ENDS}]")),
    (surrogates, None, SURROGATE),
    (ansi_escapes, "remove_control_characters", re.compile("\x1b")),
    (overstrikes, "remove_control_characters", re.compile("\b")),
    (
        control_characters,
        "remove_control_characters",
        re.compile(f"{CONTROL.pattern}|{NONCHARACTER_ABOVE_FFFF.pattern}"),
    ),
    (soft_hyphens, "remove_zero_width", re.compile(SOFT_HYPHEN)),
    (bidi_marks, "remove_zero_width", BIDI_MARK),
    (zero_width, "remove_zero_width", re.compile(f"{ZERO_WIDTH.pattern}|[{JOINERS}{TAGS}]")),
    (compose, "unicode_normalization", re.compile("[^\x00-\u02ff]")),  # last: it may join
)
