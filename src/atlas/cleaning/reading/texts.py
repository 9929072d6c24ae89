"""Read text files: decode them in blocks and divide them into documents.

``clean.documents`` says what a document is. Separators are found in the text as it was written,
because some of them (form feeds) are line ends to the later steps. Lines and paragraphs are divided
after those steps, when all line ends are equal and the headers of books are gone.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import decoding, streams
from atlas.cleaning.reading.containers import open_stream
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection, TextBlock
from atlas.cleaning.steps.gutenberg import book_starts
from atlas.params.schema import CleanParams

UTF_8 = decoding.Guess("utf-8", guessed=False)
HEAD = 1 << 20  # bytes searched for the separator of a file
LINE_END = r"(?>\r\n|[\n\r\v\f\u2028\u2029])"
BLANK_LINES = rf"{LINE_END}(?:[^\S\n\r\v\f\u2028\u2029]*{LINE_END})+"
END_OF_TEXT = re.escape("<|endoftext|>")
# The mark first, so that the search is a fast one for fixed text.
END_OF_TEXT_LINE = rf"{END_OF_TEXT}(?<![^\n\r\v\f\u2028\u2029]{END_OF_TEXT})[ \t]*(?=\Z|{LINE_END})"
USUAL_SEPARATORS = (END_OF_TEXT, r"\f", BLANK_LINES)
# Of text with equal line ends, by clean.documents.
DIVIDERS = {"line": r"\n", "paragraph": r"\n(?:[^\S\n]*\n)+"}


def read_text(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a text file or a range of one, in blocks of bounded size."""
    with open_stream(piece) as stream:
        head = stream.read(HEAD if clean.documents == "separator" else decoding.SAMPLE)
    is_small = piece.whole and len(head) < decoding.SAMPLE
    try:
        guess = decoding.guess_encoding(head, whole=False)
    except NotTextError:
        guess, is_small = UTF_8, False  # decided block by block
    if clean.encoding:
        guess = decoding.Guess(clean.encoding, guessed=False)
    converted = decoding.is_sequential(guess.encoding)
    if converted and piece.start:
        return  # the first range reads the whole file: characters can't be found from within
    separator = _separator(clean, head.decode(guess.encoding, errors="replace"))
    if head and is_small and guess == UTF_8:
        with contextlib.suppress(UnicodeDecodeError):  # needs no blocks
            document = TextBlock(piece.name, piece.name, head.decode())
            yield from divide(document, separator, notes) if separator else [document]
            return
    marks = [_byte_pattern(separator)] if separator else []
    if clean.documents == "paragraph":
        marks.append(_byte_pattern(BLANK_LINES))
    with open_stream(piece) as stream:
        stop = piece.stop
        encoding = clean.encoding
        if converted:
            stream, stop, encoding = decoding.utf8_stream(stream, guess.encoding), None, "utf-8"
        for offset, block in streams.read_blocks(stream, piece.start, stop, marks):
            identity = f"{piece.name}@{offset}" if offset else piece.name
            try:
                parts = [
                    decoding.decode(book, encoding=encoding, expected=guess)
                    for book in _books(block)
                ]
            except NotTextError as error:
                if offset == 0:
                    raise
                yield Rejection(identity, "not_text", str(error))
                continue
            for decoded in parts:
                if decoded.guessed or (converted and guess.guessed):
                    found = guess if converted else decoded
                    notes.guess(piece.name, found.encoding, found.declared)
            text = "".join(decoded.text for decoded in parts)
            replaced = sum(decoded.replaced for decoded in parts)
            if converted:
                replaced = text.count(decoding.REPLACEMENT)
            notes.counts["replaced_bytes"] += replaced
            document = TextBlock(identity, piece.name, text)
            yield from divide(document, separator, notes) if separator else [document]


def _books(block: bytes) -> list[bytes]:
    """Divide a block into books if it isn't UTF-8: each can have its own encoding."""
    if decoding.is_utf8(block):
        return [block]
    starts = [0, *book_starts(block)]
    return [block[start:stop] for start, stop in pairwise([*starts, len(block)])]


def _separator(clean: CleanParams, head: str) -> str | None:
    """Return the pattern that divides a file with this beginning, None if there is none."""
    if clean.separator:
        lines = re.split(r"\r\n|[\n\r]", clean.separator)
        return LINE_END.join(map(re.escape, lines))
    if clean.documents == "auto":
        return END_OF_TEXT_LINE
    if clean.documents == "separator":
        found = (pattern for pattern in USUAL_SEPARATORS if re.search(pattern, head))
        return next(found, BLANK_LINES)
    return None


def _byte_pattern(pattern: str) -> re.Pattern[bytes]:
    """Convert a pattern for text to one for its bytes; U+2028 and U+2029 cut no blocks."""
    return re.compile(pattern.replace(r"\u2028\u2029", "").encode())


def divide(document: Document, separator: str, notes: Notes) -> Iterator[Document]:
    """Divide a text at the matches of a pattern; drop and count these and blank parts."""
    parts = [part.strip("\r\n") for part in re.split(separator, document.text)]
    if len(parts) == 1:
        yield document
        return
    kept = 0
    for number, part in enumerate(parts, start=1):
        if part.strip():
            kept += len(part)
            yield replace(document, id=f"{document.id}#{number}", text=part)
    notes.counts["separators"] += len(document.text) - kept
