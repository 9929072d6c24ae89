"""Read mail: single messages and mailboxes (mbox)."""

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import Message

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.containers import BrokenFileError, open_stream, read_whole
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.markup import decoded, html_text
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.streams import CHUNK, MAX_BLOCK
from atlas.params.schema import CleanParams

MAX_MESSAGE = 64 << 20  # bytes, with attachments
QUOTED_FROM = re.compile(rb"^>(>*From )", re.M)
FROM = b"From "


def read_mail(piece: Piece, _: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a message: the text of its body, without headers and attachments."""
    with open_stream(piece) as stream:
        yield _document(read_whole(stream, MAX_MESSAGE), piece.name, piece, notes)


def read_mbox(piece: Piece, _: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read the messages of a mailbox; each starts with a line ``From ...`` after a blank line."""
    lines: list[bytes] = []
    number = size = 0
    blank = True
    with open_stream(piece) as stream:
        while line := stream.readline(CHUNK):
            if blank and line.startswith(FROM):
                if number:
                    yield _mbox_document(lines, size, number, piece, notes)
                lines, size = [], 0
                number += 1
            elif number:
                size += len(line)
                if size <= MAX_MESSAGE:
                    lines.append(line)
            blank = not line.strip()
    if number:
        yield _mbox_document(lines, size, number, piece, notes)


def _mbox_document(lines: list[bytes], size: int, number: int, piece: Piece, notes: Notes) -> Item:
    identity = f"{piece.name}:{number}"
    if size > MAX_MESSAGE:
        return Rejection(identity, "too_large", f"a message of more than {MAX_MESSAGE:,} bytes")
    return _document(QUOTED_FROM.sub(rb"\1", b"".join(lines)), identity, piece, notes)


def _document(data: bytes, identity: str, piece: Piece, notes: Notes) -> Item:
    message = message_from_bytes(data, policy=policy.compat32)
    try:
        texts = list(_texts(message, piece, notes))
    except (NotTextError, BrokenFileError) as error:
        return Rejection(identity, error.reason, str(error))
    except Exception as error:  # the parsers of email raise anything for damaged headers
        return Rejection(identity, "broken_mail", f"{type(error).__name__}: {error}")
    text = "\n\n".join(filter(None, map(str.strip, texts)))
    if len(text) > MAX_BLOCK:
        return Rejection(identity, "text_too_long", f"more than {MAX_BLOCK:,} characters")
    return Document(identity, piece.name, text)


def _texts(part: Message, piece: Piece, notes: Notes) -> Iterator[str]:
    """Yield the texts of a part; of alternatives the plain text, or else the HTML."""
    kind = part.get_content_type()
    if part.is_multipart():
        children = [child for child in part.get_payload() if isinstance(child, Message)]
        if kind == "multipart/alternative":
            plain = [child for child in children if _holds(child, "text/plain")]
            others = [child for child in children if _holds(child, "text/html")]
            children = plain[:1] or others[:1] or children
        for child in children:
            yield from _texts(child, piece, notes)
    elif part.get_content_disposition() == "attachment" or not kind.startswith("text/"):
        notes.counts["skipped_attachments"] += 1
    else:
        text = _decode(part, piece, notes)
        yield html_text(text) if kind == "text/html" else text


def _holds(part: Message, kind: str) -> bool:
    return any(each.get_content_type() == kind for each in part.walk())


def _decode(part: Message, piece: Piece, notes: Notes) -> str:
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    return decoded(data, piece, notes, declared=part.get_content_charset())
