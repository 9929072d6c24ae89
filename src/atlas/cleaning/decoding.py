"""Bytes to text, for files that do not say how they are encoded."""

import codecs
import re
from dataclasses import dataclass

BYTE_ORDER_MARKS = (
    # UTF-32 before UTF-16: its little-endian mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
NOT_IN_TEXT = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
LARGEST_CONTROL_SHARE = 0.02  # of a text with some damage; binary files have 0.05 and more
SAMPLE = 1 << 16  # bytes looked at to tell UTF-16 without a mark from other encodings
REPLACEMENT = "\ufffd"


class NotTextError(Exception):
    """The bytes are no text in any encoding that is known here."""


@dataclass(frozen=True)
class Decoded:
    """A text, the encoding that it was read in, and whether that was a guess."""

    text: str
    encoding: str
    guessed: bool


def decode(data: bytes) -> Decoded:
    """Reads bytes as text.

    A byte order mark decides. Without one strict UTF-8 does, and where that fails: UTF-16 if
    every other byte is zero, UTF-8 with replacement characters where valid sequences outnumber
    broken ones, else windows-1252 (of which latin-1 text is a part).

    Raises:
        NotTextError: what comes out holds too many control characters to be text.
    """
    decoded = _decode(data)
    controls = len(NOT_IN_TEXT.findall(decoded.text)) + decoded.text.count(REPLACEMENT)
    if controls > LARGEST_CONTROL_SHARE * len(decoded.text):
        raise NotTextError(f"{controls} of {len(decoded.text)} characters are no text")
    return decoded


def _decode(data: bytes) -> Decoded:
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return Decoded(data.decode(encoding, errors="replace"), encoding, guessed=False)
    utf16 = _utf16_without_mark(data[:SAMPLE])
    if utf16:
        return Decoded(data.decode(utf16, errors="replace"), utf16, guessed=True)
    try:
        return Decoded(data.decode("utf-8"), "utf-8", guessed=False)
    except UnicodeDecodeError:
        pass
    replaced = data.decode("utf-8", errors="replace")
    broken = replaced.count(REPLACEMENT)
    multibyte = sum(character > "\x7f" for character in replaced) - broken
    if multibyte <= broken:
        try:
            return Decoded(data.decode("cp1252"), "cp1252", guessed=True)
        except UnicodeDecodeError:
            pass  # five bytes mean nothing in windows-1252
    return Decoded(replaced, "utf-8", guessed=True)


def _utf16_without_mark(sample: bytes) -> str | None:
    """UTF-16 of Latin text has a zero in every other byte, and hardly any in between."""
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) / 2
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None
