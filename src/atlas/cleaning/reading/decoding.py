"""Decode bytes to text: declared encodings, Unicode, and guesses for everything else.

Certain evidence comes first: a byte order mark, then valid UTF-8. An encoding that the text
declares (XML, HTML, mail, Project Gutenberg, a comment for an editor) is used unless the bytes
contradict it, because declarations are often left over from another file. Everything else is a
guess and marked as one: UTF-16 and UTF-32 by their zero bytes, 7-bit encodings by their escape
sequences, and 8-bit encodings by how much the decoded text looks like one of the languages in
``languages.py``. UTF-8 with a few invalid bytes takes part in this contest, so it stays UTF-8 with
U+FFFD in their place.

Some encodings can't be told apart. Often the text is the same in both. In a text with few non-ASCII
characters, the more usual encoding is chosen.
"""

import codecs
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, TextIO, cast

from atlas.cleaning.reading.languages import NON_LATIN, log_likelihood
from atlas.corpora.formats import MAX_CONTROL_SHARE, has_few_controls

BYTE_ORDER_MARKS = (
    # UTF-32 first: its little-endian mark starts with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
REPLACEMENT = "\ufffd"
SAMPLE = 1 << 16  # bytes used for a guess
CHUNK = 1 << 20  # bytes searched at a time
CONVERTED = 1 << 16  # characters converted at a time
NON_ASCII_BYTE = re.compile(rb"[\x80-\xff]")
CHANCE = 20  # bytes of longer sequences in UTF-8; text in another encoding has fewer by chance
NON_ASCII = re.compile(r"[^\x00-\x7f]+")
C1 = re.compile(rb"[\x80-\x9f]")  # without them, Windows-1252 is Latin-1


class NotTextError(Exception):
    """The bytes are not text in any known encoding."""

    reason = "not_text"


@dataclass(frozen=True)
class Guess:
    """An encoding by its Python name; ``guessed`` unless declared or beyond doubt.

    ``declared`` is the encoding that the text declares, by the name it uses, or None.
    """

    encoding: str
    guessed: bool
    declared: str | None = None


@dataclass(frozen=True)
class Decoded:
    """Decoded text; ``replaced`` invalid bytes became U+FFFD, one per invalid sequence."""

    text: str
    encoding: str
    guessed: bool
    replaced: int = 0
    declared: str | None = None


def decode(data: bytes, *, encoding: str | None = None, expected: Guess | None = None) -> Decoded:
    """Decode a file or a block of one.

    ``encoding`` is used whatever the bytes look like. ``expected`` is the encoding of the start of
    the file, or is declared elsewhere; it is used unless the bytes contradict it.
    """
    if encoding:
        return _decode(data, Guess(encoding, guessed=False))
    guess = guess_encoding(data, whole=True, expected=expected)
    decoded = _decode(data, guess)
    invalid = decoded.replaced if guess.encoding == "utf-8" else NON_ASCII_BYTE.search(data)
    if invalid and python_name(guess.encoding) in PRIORS:
        return _decode_mixture(data) or decoded
    return decoded


def _decode(data: bytes, guess: Guess) -> Decoded:
    replaced = 0
    try:
        text = data.decode(guess.encoding)
    except UnicodeDecodeError:
        text = data.decode(guess.encoding, errors="replace")
        valid = data.decode(guess.encoding, errors="ignore").encode(guess.encoding, "ignore")
        replaced = max(1, len(data) - len(valid))
    return Decoded(text, guess.encoding, guess.guessed, replaced, guess.declared)


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


def guess_encoding(sample: bytes, whole: bool, *, expected: Guess | None = None) -> Guess:
    """Find an encoding for ``codecs.getincrementaldecoder(encoding)("replace")``.

    In a ``whole`` file, a character cut at the end is damage, and Latin-1 is reported as such
    instead of Windows-1252, which decodes it the same.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return Guess(encoding, guessed=False)
    if seven_bit := _seven_bit(sample):
        return Guess(seven_bit, guessed=True)
    if not has_few_controls(sample):
        wide = _wide(sample[:SAMPLE])
        if not wide:
            raise NotTextError("it has too many control characters")
        return Guess(wide, guessed=True)
    if sample.isascii():
        return Guess("utf-8", guessed=False)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(sample, final=whole)
    except UnicodeDecodeError:
        multibyte = None
        if ebcdic := _ebcdic(sample):
            return Guess(ebcdic, guessed=True)
    else:
        multibyte = len(sample) - len(text)
        if multibyte > CHANCE:
            return Guess("utf-8", guessed=False)
    if expected and expected.encoding == "utf-8" and not expected.declared:
        expected = None  # perhaps only the start, which is ASCII
    if declared := declared_encoding(sample):
        expected = Guess(python_name(declared) or "utf-8", guessed=False, declared=declared)
    if multibyte is not None and (expected is None or expected.encoding == "utf-8"):
        return Guess("utf-8", guessed=False, declared=declared)
    encoding, contradicted = _best(sample, expected)
    guessed = encoding != "utf-8" and (contradicted or expected is None or expected.guessed)
    if encoding == "cp1252" and whole and not C1.search(sample):
        encoding = "iso-8859-1"
    return Guess(encoding, guessed, expected.declared if expected else None)


# Encodings whose blocks can't be decoded alone, or cut at a line end.
SEQUENTIAL = ("utf-16", "utf-32", "utf-7", "iso2022", "hz")
EBCDIC = ("cp037", "cp500", "cp1140", "cp273", "cp1026", "cp875", "cp424")  # of mainframes


def is_sequential(encoding: str) -> bool:
    """True if blocks and lines of a file can't be found by their bytes."""
    return encoding.startswith(SEQUENTIAL) or encoding in EBCDIC


def utf8_stream(stream: BinaryIO, encoding: str) -> BinaryIO:
    """Convert a stream to UTF-8, in pieces; invalid bytes become U+FFFD."""
    text = io.TextIOWrapper(stream, encoding, errors="replace", newline="")
    return cast(BinaryIO, io.BufferedReader(_Utf8Reader(text)))


class _Utf8Reader(io.RawIOBase):
    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._pending = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._pending:
            self._pending = self._text.read(CONVERTED).encode(errors="replace")
        size = min(len(buffer), len(self._pending))
        buffer[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size


DECLARATION = re.compile(
    rb"""
    \A\s*<\?xml[^>]{0,200}?\sencoding\s*=\s*["']([\w.:+-]+)
    | <meta\b[^>]{0,300}?charset\s*=\s*["']?\s*([\w.:+-]+)
    | ^content-type:[^\n]*(?:\n[\ \t][^\n]*)*?;\s*charset\s*=\s*"?([\w.:+-]+)
    | ^[\ \t*]*character\ set(?:\ encoding)?:[\ \t]*([^\r\n]+)
    | \A(?:[^\n]*\n)?[^\n]*?coding[:=]\s*([\w.-]+)  # PEP 263, Emacs and Vim
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
DECLARED_WITHIN = 1 << 13  # bytes at the start
# What a name means in practice: browsers read these as the larger encoding, too.
SUPERSETS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "utf-8-sig": "utf-8",
}
SPELLINGS = {
    "x-sjis": "cp932",
    "x-euc-jp": "euc_jp",
    "x-gbk": "gb18030",
    "x-big5": "big5",
    "x-mac-roman": "mac_roman",
    "x-mac-cyrillic": "mac_cyrillic",
    "ks_c_5601-1987": "cp949",
    "iso-8859-8-i": "iso8859-8",
    "unicode-1-1-utf-8": "utf-8",
}
NOT_CHARACTER_SETS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")


def declared_encoding(data: bytes) -> str | None:
    """Return the encoding that a text declares near its start, as written there."""
    match = DECLARATION.search(data[:DECLARED_WITHIN])
    if match is None:
        return None
    name = next(group for group in match.groups() if group).decode("ascii", errors="ignore").strip()
    return name if python_name(name) else None


def python_name(name: str) -> str | None:
    """Return Python's name of an encoding, or None if it is unknown.

    It understands Project Gutenberg's "ISO Latin-1", "Windows Code Page 1252" and "Unicode UTF-8".
    """
    name = name.strip().lower()
    name = re.sub(r"\Aiso[ _-]?latin[ _-]?(\d+).*", r"latin\1", name)
    name = re.sub(r"\A(?:ms[ -])?windows[ -](?:code[ -]?page[ -])?(\d+).*", r"cp\1", name)
    for each in (name, *re.findall(r"[\w.:+-]+", name)):
        spelled = SPELLINGS.get(each, each)
        try:
            found = codecs.lookup(spelled).name
            "a".encode(found)
        except (LookupError, UnicodeError):  # unknown, or not for text
            continue
        if found not in NOT_CHARACTER_SETS:
            return SUPERSETS.get(found, found)
    return None


# An escape sequence that selects a character set, at the start of a text in these encodings.
ISO_2022_KR = re.compile(rb"\x1b\$\)C.*?\x0e[!-~\s]+\x0f", re.DOTALL)
ISO_2022_JP = re.compile(rb"\x1b(?:\$[@AB]|\$\([@BCDOPQ]|\([IJ])")
HZ = re.compile(rb"~\{(?:[!-w][!-~])+~\}")


def _seven_bit(sample: bytes) -> str | None:
    """Detect encodings that write everything in ASCII bytes, with escape sequences."""
    if not (b"\x1b" in sample or b"~{" in sample) or NON_ASCII_BYTE.search(sample):
        return None
    for pattern, encodings in (
        (ISO_2022_KR, ("iso2022_kr",)),
        (
            ISO_2022_JP,
            ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2004", "iso2022_jp_3", "iso2022_jp_2"),
        ),
        (HZ, ("hz",)),
    ):
        if not pattern.search(sample):
            continue
        for encoding in encodings:
            try:
                codecs.getincrementaldecoder(encoding)().decode(sample)
            except UnicodeDecodeError:
                continue
            return encoding
    return None


EBCDIC_SPACE = b"@"  # what its byte is in ASCII
MIN_SPACES = 0.05  # share of spaces in text
ODD_IN_EBCDIC = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f|\[\]{}\\^~`¬¢¦\ufffd]|[\"#$@](?=\w)"
)
UNLIKELY = -12.0
MIN_EBCDIC_FIT = -5.0  # per character


def _ebcdic(data: bytes) -> str | None:
    """Detect EBCDIC, which writes ASCII letters as non-ASCII bytes."""
    sample = data[:SECOND_LOOK]
    spaces = sample.count(EBCDIC_SPACE)
    if spaces < MIN_SPACES * len(sample) or sample.count(b" ") > MIN_SPACES * spaces:
        return None
    scores = {}
    for name in EBCDIC:
        text = sample.decode(name, errors="replace")
        score = log_likelihood(text) + UNLIKELY * len(ODD_IN_EBCDIC.findall(text))
        if score > MIN_EBCDIC_FIT * len(text):
            scores[name] = score
    return max(scores, key=scores.__getitem__, default=None)


WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
ODD_IN_WIDE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\uf8ff\ufdd0-\ufdef\ufffd-\uffff]")
# Whitespace, and punctuation of Chinese and Japanese: numbers read as UTF-16 have little of it.
SEPARATOR = re.compile(r"[\s\u3001\u3002\uff0c]")
MIN_SEPARATOR_SHARE = 0.01
LIKELY_TEXT = -8.5  # logarithm of the probability per character


def _wide(sample: bytes) -> str | None:
    """Detect UTF-32 or UTF-16 without a byte order mark."""
    scores = {}
    for encoding in WIDE:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
        if not text or len(ODD_IN_WIDE.findall(text)) > MAX_CONTROL_SHARE * len(text):
            continue
        score = log_likelihood(text) / len(text)
        if score > LIKELY_TEXT or len(SEPARATOR.findall(text)) >= MIN_SEPARATOR_SHARE * len(text):
            # In the wrong byte order, letters of one script become characters of many.
            scores[encoding] = (-len({ord(each) >> 8 for each in text}), score)
    return max(scores, key=scores.__getitem__, default=None)


# Candidates for 8-bit text, by how usual they are. Equal texts, and texts with little evidence, go
# to the first.
FIRST = ("utf-8", "cp1252")
USUAL = (
    *("cp1250", "cp1251", "gb18030", "cp932", "cp949", "big5", "euc_jp", "koi8_r", "cp1253"),
    *("cp1254", "cp1255", "cp1256", "cp874", "iso8859_2", "iso8859_15", "iso8859_7", "cp437"),
    *("cp850", "mac_roman"),
)
LESS_USUAL = (
    *("cp1257", "cp1258", "iso8859_5", "iso8859_6", "iso8859_8", "iso8859_9", "iso8859_4"),
    *("iso8859_13", "koi8_u", "cp950", "big5hkscs", "cp866", "cp852", "mac_cyrillic", "cp855"),
)
RARE = (
    *("cp858", "johab", "iso8859_3", "iso8859_10", "iso8859_14", "iso8859_16", "cp737", "cp775"),
    *("cp857", "cp860", "cp861", "cp862", "cp863", "cp864", "cp865", "cp869", "cp720", "cp1125"),
    *("mac_latin2", "mac_greek", "mac_turkish", "mac_iceland", "hp_roman8", "kz1048", "ptcp154"),
)
# Hardly anyone used these, and they read stray bytes of others (KOI8-R, Shift JIS) better.
VERY_RARE = ("koi8_t", "cp1006", "euc_jis_2004", "shift_jis_2004")
PRIORS = {
    codecs.lookup(name).name: -penalty - 0.02 * index
    for penalty, names in ((0, FIRST), (1.3, USUAL), (1.8, LESS_USUAL), (9, RARE), (40, VERY_RARE))
    for index, name in enumerate(names)
}
FIRST_LOOK = 700  # bytes that narrow the choice to SHORTLIST encodings
SECOND_LOOK = 5000
SHORTLIST = 8
FEW = 0.05  # of non-ASCII bytes: a text with fewer is hardly in another script than Latin
FEW_NON_LATIN = -18.0
INVALID = -8.0  # logarithm of the probability of an invalid byte in UTF-8
# How much less likely a declared encoding may be than the best one, in all and per non-ASCII byte.
TOLERANCE, TOLERANCE_PER_BYTE = 10.0, 1.5


def _best(data: bytes, expected: Guess | None = None) -> tuple[str, bool]:
    """Return the most likely encoding, or the expected one; True if the bytes contradict that."""
    words = _non_ascii_words(data)
    context = _ascii_letters(data)
    few = len(NON_ASCII_BYTE.findall(data[:SAMPLE])) < FEW * len(data[:SAMPLE])
    name = python_name(expected.encoding) if expected else None
    candidates = dict.fromkeys([*PRIORS, *([name] if name else [])])
    first = _scores(words[:FIRST_LOOK], candidates, context, few)
    names = sorted(first, key=first.__getitem__, reverse=True)[:SHORTLIST]
    names += [name] if name and name not in names else []
    scores = _scores(words, names, context, few) if len(words) > FIRST_LOOK else first
    best = max(scores, key=scores.__getitem__)
    if name:
        tolerance = TOLERANCE + TOLERANCE_PER_BYTE * len(NON_ASCII_BYTE.findall(words))
        if scores[name] >= scores[best] - tolerance:
            return name, False
    return best, name is not None


def _scores(
    words: bytes, names: Iterable[str], context: str = "", few: bool = False
) -> dict[str, float]:
    scores: dict[str, float] = {}
    seen: dict[str, str] = {}
    for name in names:
        text = words.decode(name, errors="replace")
        score = PRIORS.get(name, 0.0)
        if name == "utf-8":
            score += INVALID * (len(words) - len(words.decode(errors="ignore").encode()))
            text = text.replace(REPLACEMENT, "?")
        if text in seen:
            scores[name] = scores[seen[text]] - 0.01
            continue
        seen[text] = name
        scores[name] = score + log_likelihood(text, context, NON_LATIN + FEW_NON_LATIN * few)
    return scores


RARE_WORD = 200  # bytes
MAX_WORDS = 5000  # looked at, with repetitions
WORD_END = re.compile(rb"[\s<]")
CONTEXT = 1000  # bytes around the first non-ASCII one


def _ascii_letters(data: bytes) -> str:
    match = NON_ASCII_BYTE.search(data)
    around = match.start() if match else 0
    window = data[max(0, around - CONTEXT) : around + CONTEXT].decode("ascii", errors="ignore")
    return "".join(dict.fromkeys(re.findall("[a-z]+", window.lower())))


def _non_ascii_words(data: bytes) -> bytes:
    """Collect distinct words with a non-ASCII byte, among them one for each such byte."""
    words: dict[bytes, None] = {}
    room = SECOND_LOOK
    end = 0
    for _ in range(MAX_WORDS):
        match = NON_ASCII_BYTE.search(data, end)
        if match is None or room <= 0:
            break
        word, end = _word_at(data, match.start(), room)
        if word not in words:
            words[word] = None
            room -= len(word) + 1
    common = b"\n".join(words)
    rest = data[end:]
    missing = {*rest.translate(None, bytes(range(128)))} - {*common}
    for byte in sorted(missing):
        # After an ASCII byte, since from within a character the rest would be misread.
        if match := re.search(rb"(?<=[^\x80-\xff])" + re.escape(bytes([byte])), rest):
            word, _ = _word_at(rest, match.start(), RARE_WORD)
            if len(word) < RARE_WORD:
                words[word] = None
    return b"\n" + b"\n".join(words) + b"\n"


def _word_at(data: bytes, start: int, room: int) -> tuple[bytes, int]:
    """Return the word around a byte, and where it ends."""
    window = data[max(0, start - 40) : start]
    before = max(window.rfind(mark) for mark in (b" ", b"\n", b"\t", b">")) + 1
    match = WORD_END.search(data, start)
    end = min(match.start() if match else len(data), start + room)
    return window[before:] + data[start:end], end


MIN_VALID_SHARE = 0.02  # of non-ASCII lines in a mixture; by chance, few lines are valid UTF-8
CLEAR = 10.0  # difference of the logarithms of two probabilities


def _decode_mixture(data: bytes) -> Decoded | None:
    """Decode a mixture of UTF-8 and another encoding line by line; return None if it isn't one."""
    if is_utf8(data):
        return None
    lines = data.splitlines(keepends=True)
    invalid = {number for number, line in enumerate(lines) if not is_utf8(line)}
    valid = [line for number, line in enumerate(lines) if number not in invalid]
    valid = [line for line in valid if not line.isascii()]
    if not valid or len(valid) < MIN_VALID_SHARE * len(invalid):
        return None
    others = {number for number in invalid if not _is_damaged_utf8(lines[number])}
    other = b"".join(lines[number] for number in sorted(others))
    if not other:
        return None
    encoding, _ = _best(other)
    for sample, likely, unlikely in (
        (b"".join(valid), "utf-8", encoding),
        (other, encoding, "utf-8"),
    ):
        scores = _scores(_non_ascii_words(sample), [likely, unlikely])
        if likely == unlikely or scores[likely] < scores[unlikely] + CLEAR:
            return None
    decoded = [
        _decode(line, Guess(encoding if number in others else "utf-8", guessed=True))
        for number, line in enumerate(lines)
    ]
    replaced = sum(each.replaced for each in decoded)
    return Decoded("".join(each.text for each in decoded), encoding, True, replaced)


def is_utf8(data: bytes) -> bool:
    """Check if bytes are valid UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_damaged_utf8(line: bytes) -> bool:
    """Check if a line has more valid sequences of UTF-8 than invalid bytes."""
    valid = line.decode(errors="ignore")
    sequences = sum(map(len, NON_ASCII.findall(valid)))
    return sequences > len(line) - len(valid.encode())
