"""Bring text into canonical form: mojibake, line ends, control and invisible characters, NFC.

Each step takes a text and returns it with the number of changes. Most texts need no change, so
each step starts with a cheap check.

Mojibake is UTF-8 that was decoded in another encoding and stored that way: an apostrophe becomes
``â€™``. ftfy detects and undoes it; its other fixes are not used, so quotes and dashes stay as they
are. It is slow, and the longer a text, the more false alarms it raises, so it only sees lines with
a pair of characters that could be mojibake.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from functools import cache

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
    if text.isascii():
        return text, 0
    parts = []
    repaired = done = 0
    suspicious = _suspicious_pairs(spaces=A0_AS_SPACE.search(text) is not None)
    while match := suspicious.search(text, done):
        start = text.rfind("\n", 0, match.start()) + 1
        end = text.find("\n", match.end())
        end = len(text) if end < 0 else end
        line = text[start:end]
        fixed = _fix_line(line)
        repaired += fixed != line
        parts += [text[done:start], fixed]
        done = end
    return "".join([*parts, text[done:]]), repaired


def _fix_line(line: str) -> str:
    from ftfy import fix_encoding  # slow to import and rarely needed

    fixed = fix_encoding(QUOTE_WITHOUT_9D.sub(CLOSING_QUOTE, line), fix_c1_controls=False)
    # Repaired mojibake is shorter, or has a lost A0 again. Otherwise ftfy only mistook control
    # characters (U+0085 is a line end) for letters and signs of Windows-1252.
    return fixed if len(fixed) < len(line) or A0_AS_SPACE.search(line) else line


@cache
def _suspicious_pairs(spaces: bool) -> re.Pattern[str]:
    """Match the character pairs that the first two bytes of a UTF-8 sequence are misread as.

    ``spaces`` adds A0_AS_SPACE, which is much slower to search for.
    """
    leads = {name: CYRILLIC_LEAD_BYTES if name == "cp1251" else LEAD_BYTES for name in MISREAD_AS}
    first = [_misread(leads[name], name) for name in MISREAD_AS]
    second = [_misread(CONTINUATION_BYTES, name) for name in MISREAD_AS]
    either = "|".join(f"[{a}][{b}]" for a, b in zip(first, second, strict=True))
    space = f"|{A0_AS_SPACE.pattern}" if spaces else ""
    # The lookahead, any lead before any continuation, quickly skips nearly all text.
    return re.compile(f"(?=[{''.join(first)}][{''.join(second)}])(?:{either}){space}")


def _misread(values: bytes, encoding: str) -> str:
    """Decode each byte and escape it for a regex; an undefined byte becomes a control character."""
    decoded = (bytes([each]).decode(encoding, errors="ignore") or chr(each) for each in values)
    return "".join(map(re.escape, decoded))


Step = Callable[[str], tuple[str, int]]

OTHER_LINE_ENDS = "\r\v\f\x85\u2028\u2029"
SURROGATE = re.compile("[\ud800-\udfff]")
# C0 and C1 except tab and line feed, DEL, and Unicode noncharacters. Those above FFFF have their
# own pattern: in one character class with the others they would slow down every text.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
ABOVE_FFFF = re.compile("[\U00010000-\U0010ffff]")
PLANE_ENDS = [f"{chr(end - 2)}{chr(end - 1)}" for end in range(0x20000, 0x110001, 0x10000)]
NONCHARACTER_ABOVE_FFFF = re.compile(f"[{''.join(PLANE_ENDS)}]")
# Soft hyphen, zero-width space, word joiner, byte order mark and direction marks.
INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
# Scripts where a joiner or non-joiner changes the shape of letters (Unicode 16, sections 9.2,
# 12.1 and 23.2): Arabic to Mandaic, Indic, Tibetan, Myanmar, Khmer, Mongolian, Javanese.
JOINING_SCRIPTS = (
    "\u0620-\u08ff\u0900-\u0dff\u0f00-\u109f\u1780-\u18af\u1b00-\u1bff\ua840-\ua8ff\ua980-\ua9ff"
    "\uaa60-\uaa7f\U00011000-\U000114ff"
)
VIRAMA = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u1039\u103a\u17d2"
# Arrows, symbols and pictographs that emoji consist of, with variation selector and skin tones.
EMOJI = (
    "\u2190-\u21ff\u2300-\u2328\u232b-\u23ff\u2600-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff"
)
AFTER_VIRAMA = f"(?<=[{VIRAMA}])[\u200c\u200d]"
BETWEEN_LETTERS = f"(?<=[{JOINING_SCRIPTS}])[\u200c\u200d](?=[{JOINING_SCRIPTS}])"
WITHIN_EMOJI = f"(?<=[{EMOJI}])\u200d(?=[{EMOJI}])"
USELESS_JOINER = re.compile(f"(?!{AFTER_VIRAMA}|{BETWEEN_LETTERS}|{WITHIN_EMOJI})[\u200c\u200d]")


def normalize(text: str, clean: CleanParams, changes: Counter[str]) -> str:
    r"""Bring a document into canonical form; doing it twice changes nothing more.

    Every line end becomes ``\n`` and every lone surrogate U+FFFD (UTF-8 can't encode it);
    ``clean`` selects the other steps. ``changes`` counts what each step did, under its name.
    """
    steps: list[Step] = [line_ends, surrogates]
    if clean.remove_control_characters:
        steps.append(control_characters)
    if clean.remove_zero_width:
        steps.append(zero_width)
    if clean.unicode_normalization == "NFC":  # last: removals make accents follow their letters
        steps.append(compose)
    while steps:
        for step in steps:
            text, count = step(text)
            if count:
                changes[step.__name__] += count
        # NFC also reorders accents, after which a joiner may be useless.
        reordered = count and step is compose and zero_width in steps
        steps = [zero_width, compose] if reordered else []
    return text


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


def control_characters(text: str) -> tuple[str, int]:
    """Remove control characters except tabs and line ends, and Unicode noncharacters."""
    text, removed = CONTROL.subn("", text)
    if not text.isascii() and ABOVE_FFFF.search(text):
        text, noncharacters = NONCHARACTER_ABOVE_FFFF.subn("", text)
        removed += noncharacters
    return text, removed


def zero_width(text: str) -> tuple[str, int]:
    """Remove invisible characters without width.

    Joiners stay where they shape letters (Persian, Hindi) or combine emoji.
    """
    if text.isascii():
        return text, 0
    text, removed = INVISIBLE.subn("", text)
    if "\u200c" in text or "\u200d" in text:
        text, joiners = USELESS_JOINER.subn("", text)
        removed += joiners
    return text, removed


def compose(text: str) -> tuple[str, int]:
    """Compose letters and accents (NFC); the count is 1 if that changed the text."""
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text, 0
    return unicodedata.normalize("NFC", text), 1
