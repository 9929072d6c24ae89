"""Bytes to text, for files that do not say how they are encoded.

What is certain comes first: a byte order mark, then valid UTF-8. All else is a guess and said to
be one: UTF-16 and UTF-32 by their zeros, Western encodings by where their letters and signs stand
(``western.py``), other scripts by charset-normalizer. Text that is UTF-8 but for a few bytes stays
UTF-8 and gets U+FFFD in their place.

Which Western encoding a text is in: Windows-1252, of which Latin-1 is a part, or DOS's 437.

The same byte is a letter in one and a sign in another (82 is é in DOS and a low quote in
Windows), and both have places of their own: letters stand within words, a low quote opens one.
A reading gains a point for each character in its place and loses one for each that is out of it.
"""

import codecs
import re
from dataclasses import dataclass
from typing import BinaryIO

CANDIDATES = ("cp1252", "cp437")  # the first where the scores are equal

SMALL = "a-zß-öø-ÿœšž"
CAPITAL = "A-ZÀ-ÖØ-ÞŒŠŽŸ"
SMALL_ACCENTED = "ß-öø-ÿœšž"
CAPITAL_ACCENTED = "À-ÖØ-ÞŒŠŽŸ"
LETTER = SMALL + CAPITAL
ACCENTED = SMALL_ACCENTED + CAPITAL_ACCENTED
BOX = "\u2500-\u259f"  # lines, corners and blocks
STRETCH = "─═░▒▓█▄▀"  # those that fill a line
JOINT = "│-╏║-╬▌▐"  # those that stand apart
NON_ASCII_LETTERS = r"(?=[^\x00-\x7f])"  # a quick look that spares most of the text the rest

PLACES = (
    rf"(?<=[{LETTER}])[{SMALL_ACCENTED}]|[{SMALL_ACCENTED}](?=[{SMALL}])",  # été
    rf"(?<![{LETTER}])[{CAPITAL_ACCENTED}](?=[{LETTER}])",  # École
    rf"(?<=[{CAPITAL}])[{CAPITAL_ACCENTED}](?![{SMALL}])",  # DÉJÀ
    r"(?<!\S)[àáåéèêíóöúÀÁÅÉÈÍÓÖÚ](?!\S)",  # words of one letter
    rf"(?<=[{LETTER}])[’\u00ad](?=[{LETTER}])",  # it’s, and the soft hyphen
    r"(?<=[\w«–.,;:!?%)])\u00a0(?=[\w»–?!;:°%(€])",  # no-break space
    rf"(?<![{LETTER}])[“‘«„‚¿¡](?=[\s\u00a0{LETTER}])",  # opens
    rf"(?<=[{LETTER}\s\u00a0.,!?…])[”»](?![{LETTER}])|(?<=[{LETTER}.,!?])[’‘“](?![{LETTER}])",
    rf"(?<=[{LETTER}])…|(?<=\s)[–—](?=\s)",
    r"[£€§©](?=[\s\u00a0]?\d)|(?<=[\d\u00a0])[£€°–]",
    rf"[{STRETCH}](?=[{BOX}])|(?<=[{BOX}])[{STRETCH}]",
    rf"[{BOX}](?=[{STRETCH}])|(?<=[{STRETCH}])[{BOX}]|(?<!\S)[{BOX}](?!\S)",
)
MISPLACES = (
    rf"[{ACCENTED}]{{3,}}",  # no Western word has so many in a row
    rf"(?<=[{SMALL}])[{CAPITAL_ACCENTED}]",
    rf"(?<![{LETTER}’])[{ACCENTED}](?![{LETTER}’\s.,!?-])",  # alone among signs
    rf"(?<=[{LETTER}])[^\x00-\x7f{LETTER}’–—«»“”…\u00a0\u00ad](?=[{LETTER}])",  # a sign in a word
    rf"(?<=[{LETTER}])[„‚¿¡€£](?![{LETTER}])",  # at its end
    rf"[{JOINT}]{{2,}}|(?<![\s{BOX}])[{BOX}](?![\s{BOX}])",
    rf"(?<![{LETTER}\d.,!?…”])[²³¹ºª¼½¾]",
    r"[\u0391-\u03c9⌠⌡≡±≥≤÷≈ⁿ¯\u00b8¨¬]",  # Greek and formulas of 437, bare accents
    r"[\x80-\x9f\ufffd]",  # no character at all
)
IN_PLACE = re.compile(f"{NON_ASCII_LETTERS}(?:{'|'.join(PLACES)})")
OUT_OF_PLACE = re.compile(f"{NON_ASCII_LETTERS}(?:{'|'.join(MISPLACES)})")


@dataclass(frozen=True)
class Western:
    """The likeliest encoding, and ``fit``: 1 if each character beyond ASCII is in its place.

    At 0 nothing tells, and below more are out of place than in it.
    """

    encoding: str
    fit: float


def likeliest(sample: bytes) -> Western:
    """Weighs a sample that holds bytes beyond ASCII."""
    scores = {name: _score(sample.decode(name, errors="replace")) for name in CANDIDATES}
    encoding = max(CANDIDATES, key=lambda name: scores[name])
    fit = scores[encoding] / (len(sample) - len(sample.decode("ascii", errors="ignore")))
    return Western(encoding, fit)


def _score(text: str) -> int:
    out_of_place = sum(len(match) for match in OUT_OF_PLACE.findall(text))
    return len(IN_PLACE.findall(text)) - out_of_place


BYTE_ORDER_MARKS = (
    # UTF-32 before UTF-16: its little-endian mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
REPLACEMENT = "\ufffd"
# Control characters that text has no use for: not tab, the line ends, escape and DOS's end of file.
NOT_IN_TEXT = bytes({*range(0x20), 0x7F} - {*b"\t\n\v\f\r\x1a\x1b"})
LARGEST_CONTROL_SHARE = 0.02  # of a text with some damage; binary files have 0.05 and more
SAMPLE = 1 << 16  # bytes that a guess looks at
CHUNK = 1 << 20  # bytes that are searched at once
WIDE = ("utf-32-le", "utf-32-be", "utf-16-le", "utf-16-be")
ODD_IN_WIDE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\uf8ff\ufdd0-\ufdef\ufffd-\uffff]")
# Blanks and what ends a clause in Chinese and Japanese: numbers read as UTF-16 have few of them.
BETWEEN_WORDS = re.compile(r"[\s\u3001\u3002\uff0c]")
SMALLEST_BETWEEN_SHARE = 0.01
C1 = re.compile(rb"[\x80-\x9f]")  # Windows-1252 without them is Latin-1
BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
PLAUSIBLE_FIT = 0.5  # of a text in a Western encoding
SCRIPT_SHARE = 0.05  # bytes beyond ASCII in a text of another script; damaged ones have fewer
CYRILLIC = ("cp1251", "koi8_r", "cp866")
SMALL_CYRILLIC = re.compile("[\u0430-\u044f\u0451]")
SCRIPTS = (  # encodings that charset-normalizer chooses from, none of them Western
    *CYRILLIC,
    *("cp1253", "cp1256", "cp1250", "iso8859_2"),
    *("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp874"),
)


class NotTextError(Exception):
    """The bytes are no text in any encoding that is known here."""


@dataclass(frozen=True)
class Guess:
    """An encoding as Python names it, and whether the bytes left any doubt about it."""

    encoding: str
    guessed: bool


@dataclass(frozen=True)
class Decoded:
    """A text, the encoding it was read in, whether that was a guess, and the bytes given up.

    Each invalid sequence of the ``replaced`` bytes is U+FFFD in the text.
    """

    text: str
    encoding: str
    guessed: bool
    replaced: int = 0


def decode(data: bytes) -> Decoded:
    """Reads bytes as text.

    Raises:
        NotTextError: they are none.
    """
    guess = guess_encoding(data, whole=True)
    try:
        return Decoded(data.decode(guess.encoding), guess.encoding, guess.guessed)
    except UnicodeDecodeError:
        text = data.decode(guess.encoding, errors="replace")
        valid = data.decode(guess.encoding, errors="ignore").encode(guess.encoding)
        return Decoded(text, guess.encoding, guess.guessed, len(data) - len(valid))


def telling_sample(stream: BinaryIO) -> bytes:
    """The beginning of a stream and, if that is plain ASCII, the first other bytes in it."""
    head = stream.read(SAMPLE)
    if BEYOND_ASCII.search(head):
        return head
    while chunk := stream.read(CHUNK):
        if match := BEYOND_ASCII.search(chunk):
            chunk += stream.read(SAMPLE)
            return head + chunk[max(0, match.start() - SAMPLE) : match.start() + SAMPLE]
    return head


def guess_encoding(sample: bytes, whole: bool) -> Guess:
    """The encoding of a file, for ``codecs.getincrementaldecoder(encoding)("replace")``.

    Args:
        sample: its beginning, or its ``telling_sample``.
        whole: the sample is the whole file. A character cut at its end is then damage, and what
            is Latin-1 is called so instead of windows-1252, which reads it alike.

    Raises:
        NotTextError: the sample is no text.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return Guess(encoding, guessed=False)
    controls = len(sample) - len(sample.translate(None, NOT_IN_TEXT))
    if controls > LARGEST_CONTROL_SHARE * len(sample):
        wide = _wide(sample[:SAMPLE])
        if not wide:
            raise NotTextError(f"{controls} of {len(sample)} bytes are no text")
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
    """UTF-32 or UTF-16 without a mark, if the bytes make sense as one of them."""
    texts = {
        encoding: codecs.getincrementaldecoder(encoding)("replace").decode(sample)
        for encoding in WIDE
    }
    possible = [encoding for encoding, text in texts.items() if _is_text(text)]
    # In the wrong byte order letters of one script become characters of many.
    return min(possible, key=lambda name: len({ord(c) >> 8 for c in texts[name]}), default=None)


def _is_text(text: str) -> bool:
    odd, between = len(ODD_IN_WIDE.findall(text)), len(BETWEEN_WORDS.findall(text))
    few_odd = odd <= LARGEST_CONTROL_SHARE * len(text)
    return few_odd and between >= SMALLEST_BETWEEN_SHARE * len(text)


def _eight_bit(sample: bytes) -> str:
    """The encoding of a text that is not valid UTF-8."""
    replaced = sample.decode("utf-8", errors="replace")
    broken = replaced.count(REPLACEMENT) - sample.count(REPLACEMENT.encode())
    multibyte = len(replaced) - len(replaced.encode("ascii", errors="ignore")) - broken
    if multibyte > broken:
        return "utf-8"
    informative = _lines_beyond_ascii(sample)
    western = likeliest(informative)
    if western.fit > PLAUSIBLE_FIT:
        return western.encoding
    beyond_ascii = len(sample) - len(sample.decode("ascii", errors="ignore"))
    if beyond_ascii < SCRIPT_SHARE * len(sample):
        return western.encoding if western.fit >= 0 else "utf-8"
    return _other_script(informative) or western.encoding


def _lines_beyond_ascii(data: bytes) -> bytes:
    """The first lines that hold a byte beyond ASCII, a sample in all."""
    lines = []
    room = SAMPLE
    end = 0
    while room > 0 and (match := BEYOND_ASCII.search(data, end)):
        start = max(data.rfind(b"\n", 0, match.start()) + 1, match.start() - room // 2)
        end = data.find(b"\n", match.start())
        end = len(data) if end < 0 else end
        lines.append(data[start : min(end, start + room)])
        room -= len(lines[-1]) + 1
    return b"\n".join(lines)


def _other_script(sample: bytes) -> str | None:
    """What charset-normalizer takes a sample for, None where it is in doubt."""
    from charset_normalizer import from_bytes  # slow to import, and seldom needed

    best = from_bytes(sample, cp_isolation=list(SCRIPTS)).best()
    if best and best.encoding in CYRILLIC:
        # It cannot tell them apart; in the wrong one small letters are capitals, or signs.
        return max(CYRILLIC, key=lambda name: _small_letters(sample, name))
    return best.encoding if best else None


def _small_letters(sample: bytes, encoding: str) -> int:
    return len(SMALL_CYRILLIC.findall(sample.decode(encoding, errors="replace")))
