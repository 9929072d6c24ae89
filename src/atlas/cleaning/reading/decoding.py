"""Decode bytes to text for files that don't declare their encoding.

Certain evidence comes first: a byte order mark, then valid UTF-8. Everything else is a guess and
marked as one: UTF-16 and UTF-32 by their zero bytes, Western encodings by where letters and signs
stand, other scripts by charset-normalizer. UTF-8 with a few invalid bytes stays UTF-8, with
U+FFFD in their place.

The Western encodings are Windows-1252, which includes Latin-1, and DOS code page 437. The same
byte is a letter in one and a sign in the other (82 is é in DOS and a low quote in Windows), and
each has its place: letters are inside words, a low quote comes before one. A decoding gains a point
for each character in its place and loses one for each that is out of place.
"""

import codecs
import re
from dataclasses import dataclass
from typing import BinaryIO

WESTERN = ("cp1252", "cp437")  # ties go to the first

SMALL = "a-zß-öø-ÿœšž"
CAPITAL = "A-ZÀ-ÖØ-ÞŒŠŽŸ"
SMALL_ACCENTED = "ß-öø-ÿœšž"
CAPITAL_ACCENTED = "À-ÖØ-ÞŒŠŽŸ"
LETTER = SMALL + CAPITAL
ACCENTED = SMALL_ACCENTED + CAPITAL_ACCENTED
BOX = "\u2500-\u259f"  # lines, corners and blocks
BOX_FILL = "─═░▒▓█▄▀"  # repeated along a line
BOX_SINGLE = "│-╏║-╬▌▐"  # one at a time
NON_ASCII = r"(?=[^\x00-\x7f])"  # cheap lookahead that skips most of the text

IN_PLACE_PATTERNS = (
    rf"(?<=[{LETTER}])[{SMALL_ACCENTED}]|[{SMALL_ACCENTED}](?=[{SMALL}])",  # été
    rf"(?<![{LETTER}])[{CAPITAL_ACCENTED}](?=[{LETTER}])",  # École
    rf"(?<=[{CAPITAL}])[{CAPITAL_ACCENTED}](?![{SMALL}])",  # DÉJÀ
    r"(?<!\S)[àáåéèêíóöúÀÁÅÉÈÍÓÖÚ](?!\S)",  # one-letter words
    rf"(?<=[{LETTER}])[’\u00ad](?=[{LETTER}])",  # it’s, and the soft hyphen
    r"(?<=[\w«–.,;:!?%)])\u00a0(?=[\w»–?!;:°%(€])",  # no-break space
    rf"(?<![{LETTER}])[“‘«„‚¿¡](?=[\s\u00a0{LETTER}])",  # before a word
    rf"(?<=[{LETTER}\s\u00a0.,!?…])[”»](?![{LETTER}])|(?<=[{LETTER}.,!?])[’‘“](?![{LETTER}])",
    rf"(?<=[{LETTER}])…|(?<=\s)[–—](?=\s)",
    r"[£€§©](?=[\s\u00a0]?\d)|(?<=[\d\u00a0])[£€°–]",
    rf"[{BOX_FILL}](?=[{BOX}])|(?<=[{BOX}])[{BOX_FILL}]",
    rf"[{BOX}](?=[{BOX_FILL}])|(?<=[{BOX_FILL}])[{BOX}]|(?<!\S)[{BOX}](?!\S)",
)
OUT_OF_PLACE_PATTERNS = (
    rf"[{ACCENTED}]{{3,}}",  # too many in a row for a Western word
    rf"(?<=[{SMALL}])[{CAPITAL_ACCENTED}]",
    rf"(?<![{LETTER}’])[{ACCENTED}](?![{LETTER}’\s.,!?-])",  # alone between signs
    rf"(?<=[{LETTER}])[^\x00-\x7f{LETTER}’–—«»“”…\u00a0\u00ad](?=[{LETTER}])",  # a sign in a word
    rf"(?<=[{LETTER}])[„‚¿¡€£](?![{LETTER}])",  # at the end of a word
    rf"[{BOX_SINGLE}]{{2,}}|(?<![\s{BOX}])[{BOX}](?![\s{BOX}])",
    rf"(?<![{LETTER}\d.,!?…”])[²³¹ºª¼½¾]",
    r"[\u0391-\u03c9⌠⌡≡±≥≤÷≈ⁿ¯\u00b8¨¬]",  # Greek letters and formulas of 437, bare accents
    r"[\x80-\x9f\ufffd]",  # undefined
)
IN_PLACE = re.compile(f"{NON_ASCII}(?:{'|'.join(IN_PLACE_PATTERNS)})")
OUT_OF_PLACE = re.compile(f"{NON_ASCII}(?:{'|'.join(OUT_OF_PLACE_PATTERNS)})")


def _guess_western(sample: bytes) -> tuple[str, float]:
    """Return the best Western encoding of a sample, and its score per non-ASCII byte.

    The score is 1 if all characters are in place, and negative if most are not.
    """
    scores = {}
    for name in WESTERN:
        text = sample.decode(name, errors="replace")
        scores[name] = len(IN_PLACE.findall(text)) - sum(map(len, OUT_OF_PLACE.findall(text)))
    encoding = max(WESTERN, key=scores.__getitem__)
    return encoding, scores[encoding] / _count_non_ascii(sample)


def _count_non_ascii(data: bytes) -> int:
    return len(data) - len(data.decode("ascii", errors="ignore"))


BYTE_ORDER_MARKS = (
    # UTF-32 first: its little-endian mark starts with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
REPLACEMENT = "\ufffd"
# Control characters except tab, line ends, escape and DOS's end of file.
NOT_IN_TEXT = bytes({*range(0x20), 0x7F} - {*b"\t\n\v\f\r\x1a\x1b"})
MAX_CONTROL_SHARE = 0.02  # of slightly damaged text; binary files have 0.05 or more
SAMPLE = 1 << 16  # bytes used for a guess
CHUNK = 1 << 20  # bytes searched at a time
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
ODD_IN_WIDE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\uf8ff\ufdd0-\ufdef\ufffd-\uffff]")
# Whitespace, and punctuation of Chinese and Japanese: numbers read as UTF-16 have little of it.
SEPARATOR = re.compile(r"[\s\u3001\u3002\uff0c]")
MIN_SEPARATOR_SHARE = 0.01
C1 = re.compile(rb"[\x80-\x9f]")  # without them, Windows-1252 is Latin-1
NON_ASCII_BYTE = re.compile(rb"[\x80-\xff]")
MIN_WESTERN_FIT = 0.5
MIN_SCRIPT_SHARE = 0.05  # share of non-ASCII bytes in a non-Western script; damage has less
CYRILLIC = ("cp1251", "koi8_r", "cp866")
SMALL_CYRILLIC = re.compile("[\u0430-\u044f\u0451]")
SCRIPTS = (  # non-Western encodings that charset-normalizer chooses from
    *CYRILLIC,
    *("cp1253", "cp1256", "cp1250", "iso8859_2"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp874"),
)


class NotTextError(Exception):
    """The bytes are not text in any known encoding."""

    reason = "not_text"


@dataclass(frozen=True)
class Guess:
    """An encoding by its Python name; ``guessed`` unless the bytes leave no doubt."""

    encoding: str
    guessed: bool


@dataclass(frozen=True)
class Decoded:
    """Decoded text; ``replaced`` invalid bytes became U+FFFD, one per invalid sequence."""

    text: str
    encoding: str
    guessed: bool
    replaced: int = 0


def decode(data: bytes) -> Decoded:
    """Decode a whole file."""
    guess = guess_encoding(data, whole=True)
    try:
        return Decoded(data.decode(guess.encoding), guess.encoding, guess.guessed)
    except UnicodeDecodeError:
        text = data.decode(guess.encoding, errors="replace")
        valid = data.decode(guess.encoding, errors="ignore").encode(guess.encoding)
        return Decoded(text, guess.encoding, guess.guessed, len(data) - len(valid))


def encoding_sample(stream: BinaryIO) -> bytes:
    """Read the start of a stream and, if it is ASCII, the text around the first other byte."""
    head = stream.read(SAMPLE)
    if NON_ASCII_BYTE.search(head):
        return head
    while chunk := stream.read(CHUNK):
        if match := NON_ASCII_BYTE.search(chunk):
            chunk += stream.read(SAMPLE)
            return head + chunk[max(0, match.start() - SAMPLE) : match.start() + SAMPLE]
    return head


def guess_encoding(sample: bytes, whole: bool) -> Guess:
    """Guess an encoding, for use with ``codecs.getincrementaldecoder(encoding)("replace")``.

    In a ``whole`` file, a character cut at the end is damage, and Latin-1 is reported as such
    instead of Windows-1252, which decodes it the same.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return Guess(encoding, guessed=False)
    controls = len(sample) - len(sample.translate(None, NOT_IN_TEXT))
    if controls > MAX_CONTROL_SHARE * len(sample):
        wide = _wide(sample[:SAMPLE])
        if not wide:
            raise NotTextError(f"{controls} of {len(sample)} bytes are control characters")
        return Guess(wide, guessed=True)
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample, final=whole)
    except UnicodeDecodeError:
        encoding = _eight_bit(sample)
        if encoding == "cp1252" and whole and not C1.search(sample):
            encoding = "iso-8859-1"
        return Guess(encoding, guessed=True)
    return Guess("utf-8", guessed=False)


def _wide(sample: bytes) -> str | None:
    """Detect UTF-32 or UTF-16 without a byte order mark."""
    texts = {
        encoding: codecs.getincrementaldecoder(encoding)("replace").decode(sample)
        for encoding in WIDE
    }
    possible = [encoding for encoding, text in texts.items() if _is_text(text)]
    # In the wrong byte order, letters of one script become characters of many.
    return min(possible, key=lambda name: len({ord(c) >> 8 for c in texts[name]}), default=None)


def _is_text(text: str) -> bool:
    odd, separators = len(ODD_IN_WIDE.findall(text)), len(SEPARATOR.findall(text))
    few_odd = odd <= MAX_CONTROL_SHARE * len(text)
    return few_odd and separators >= MIN_SEPARATOR_SHARE * len(text)


def _eight_bit(sample: bytes) -> str:
    """Guess the encoding of text that is not valid UTF-8."""
    replaced = sample.decode("utf-8", errors="replace")
    broken = replaced.count(REPLACEMENT) - sample.count(REPLACEMENT.encode())
    multibyte = len(replaced) - len(replaced.encode("ascii", errors="ignore")) - broken
    if multibyte > broken:
        return "utf-8"
    informative = _non_ascii_lines(sample)
    western, fit = _guess_western(informative)
    if fit > MIN_WESTERN_FIT:
        return western
    if _count_non_ascii(sample) < MIN_SCRIPT_SHARE * len(sample):
        return western if fit >= 0 else "utf-8"
    return _guess_script(informative) or western


def _non_ascii_lines(data: bytes) -> bytes:
    """Collect the first lines with a non-ASCII byte, up to SAMPLE bytes."""
    lines = []
    room = SAMPLE
    end = 0
    while room > 0 and (match := NON_ASCII_BYTE.search(data, end)):
        start = max(data.rfind(b"\n", 0, match.start()) + 1, match.start() - room // 2)
        end = data.find(b"\n", match.start())
        end = len(data) if end < 0 else end
        lines.append(data[start : min(end, start + room)])
        room -= len(lines[-1]) + 1
    return b"\n".join(lines)


def _guess_script(sample: bytes) -> str | None:
    """Ask charset-normalizer; return None if it is not sure."""
    from charset_normalizer import from_bytes  # slow to import and rarely needed

    best = from_bytes(sample, cp_isolation=list(SCRIPTS)).best()
    if best and best.encoding in CYRILLIC:
        # It can't tell these apart; in the wrong one small letters become capitals or signs.
        texts = {name: sample.decode(name, errors="replace") for name in CYRILLIC}
        return max(CYRILLIC, key=lambda name: len(SMALL_CYRILLIC.findall(texts[name])))
    return best.encoding if best else None
