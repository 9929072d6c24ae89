"""Read text files: decode them in blocks and divide them into documents."""

import codecs
from collections.abc import Iterator

from atlas.cleaning.documents import Document
from atlas.cleaning.reading import decoding, streams
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.streams import open_stream
from atlas.params.schema import CleanParams

WIDE = {"utf-16": 2, "utf-32": 4}  # bytes per code unit


def read_text(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a text file or a range of one; a file is one document unless it has separators."""
    with open_stream(piece.path, piece.member) as stream:
        head = stream.read(decoding.SAMPLE)
    try:
        encoding = decoding.guess_encoding(head, whole=False).encoding
    except NotTextError:
        encoding = "utf-8"  # decided block by block
    width = WIDE.get(encoding[:6], 1)
    wide = width > 1
    if wide and piece.start:
        return  # the first range reads the whole file: code units can't be found from within
    stop = None if wide else piece.stop
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    with open_stream(piece.path, piece.member) as stream:
        mark = clean.separator.encode() if clean.separator and not wide else b""
        for offset, block in streams.read_blocks(stream, piece.start, stop, width, mark):
            identity = f"{piece.name}@{offset}" if offset else piece.name
            try:
                decoded = decoding.decode(block) if not wide or offset == 0 else None
            except NotTextError as error:
                if offset == 0:
                    raise
                yield Rejection(identity, "not_text", str(error))
                continue
            if decoded:
                if decoded.guessed:
                    notes.guessed[piece.name] = decoded.encoding
                notes.counts["replaced_bytes"] += decoded.replaced
            text = decoded.text if decoded and not wide else decoder.decode(block)
            yield from _split(identity, piece.name, text, clean.separator)


def _split(identity: str, source: str, text: str, separator: str | None) -> Iterator[Document]:
    if not separator:
        yield Document(identity, source, text)
        return
    for number, part in enumerate(text.split(separator), start=1):
        if part.strip():
            yield Document(f"{identity}#{number}", source, part.strip("\r\n"))
