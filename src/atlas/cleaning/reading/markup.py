"""Read marked-up files as text: HTML, XML, Jupyter notebooks, subtitles.

Such a file is one document: what a reader sees, without tags, scripts, styles and the head.
"""

import html
import json
import re
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

from atlas.cleaning.reading import decoding
from atlas.cleaning.reading.containers import BrokenFileError, open_stream, read_whole
from atlas.cleaning.reading.pieces import Item, Notes, Piece, TextBlock
from atlas.cleaning.reading.streams import MAX_BLOCK
from atlas.params.schema import CleanParams

MAX_MARKUP = 32 << 20  # bytes; a parsed page takes ten times as much memory
# XHTML can close any element at once, which HTML parsers take for its start.
EMPTY_ELEMENT = re.compile(r"<((?!area|base|br|col|hr|img|input|link|meta)[a-zA-Z]\w*)\b([^<>]*)/>")
# Elements that the extractor leaves out, and what it keeps instead.
SHOWN = {
    **dict.fromkeys(("label", "button"), "span"),
    **dict.fromkeys(("figure", "figcaption", "summary", "legend", "object"), "div"),
    **dict.fromkeys(("select", "option", "textarea"), "div"),
}
SHOWN_TAG = re.compile(rf"<(/?)({'|'.join(SHOWN)})\b", re.I)
# Elements that hold the text in formats with a long header.
BODIES = {"FictionBook": "body", "TEI": "text", "TEI.2": "text"}
XML_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos);)[A-Za-z]\w*;")
BLANK_LINES = re.compile(r"\n\s*\n\s*")


def decoded(
    data: bytes,
    piece: Piece,
    notes: Notes,
    encoding: str | None = None,
    declared: str | None = None,
) -> str:
    """Decode a file or a part of one; note a guessed encoding and replaced bytes."""
    name = decoding.python_name(declared) if declared else None
    expected = decoding.Guess(name, guessed=False, declared=declared) if name else None
    result = decoding.decode(data, encoding=encoding, expected=expected)
    if result.guessed:
        notes.guess(piece.name, result.encoding, result.declared)
    notes.counts["replaced_bytes"] += result.replaced
    return result.text.removeprefix("\ufeff")


def _reader(
    extract: Callable[[str], str],
) -> Callable[[Piece, CleanParams, Notes], Iterator[Item]]:
    def read(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
        with open_stream(piece) as stream:
            data = read_whole(stream, MAX_MARKUP)
        text = decoded(data, piece, notes, clean.encoding)
        yield from text_blocks(extract(text), piece)

    return read


def text_blocks(text: str, piece: Piece) -> Iterator[TextBlock]:
    """Make the text of a file one document, or several of at most MAX_BLOCK characters."""
    start = 0
    while start < len(text) or not start:
        stop = start + MAX_BLOCK
        if stop < len(text):
            ends = (text.rfind(mark, start, stop) + len(mark) for mark in ("\n\n", "\n", " "))
            stop = next((end for end in ends if end > start + 1), stop)
        identity = f"{piece.name}@{start}" if start else piece.name
        yield TextBlock(identity, piece.name, text[start:stop])
        start = stop


def html_text(page: str, xhtml: bool = False) -> str:
    """Return all visible text of a page as lines, with blank lines around paragraphs."""
    from resiliparse.extract.html2text import extract_plain_text

    if xhtml or page.lstrip().startswith("<?xml"):
        page = EMPTY_ELEMENT.sub(r"<\1\2></\1>", page)
    page = SHOWN_TAG.sub(lambda tag: f"<{tag[1]}{SHOWN[tag[2].lower()]}", page)
    return str(extract_plain_text(page, main_content=False, alt_texts=False))


def xml_text(source: str) -> str:
    """Return the text of an XML file, its blocks separated by blank lines.

    A block is an element with text of its own, and all that is inside it.
    """
    root = parse_xml(source)
    inner = BODIES.get(_local_name(root))
    bodies = [child for child in root if _local_name(child) == inner] if inner else [root]
    blocks = []
    pending = bodies[::-1]
    while pending:
        element = pending.pop()
        children = list(element)
        tails = (child.tail for child in children)
        if not children or any(text and text.strip() for text in (element.text, *tails)):
            lines = [" ".join(line.split()) for line in "".join(element.itertext()).split("\n")]
            blocks.append(BLANK_LINES.sub("\n\n", "\n".join(lines)).strip())
        else:
            pending += [child for child in children[::-1] if _local_name(child) != "binary"]
    return "\n\n".join(filter(None, blocks))


def parse_xml(source: str | bytes) -> ElementTree.Element:
    """Parse XML; entities are never read from elsewhere, and expat limits those in the file."""
    try:
        try:
            return ElementTree.fromstring(source)  # noqa: S314 - see above
        except ElementTree.ParseError as error:
            if isinstance(source, bytes) or "undefined entity" not in str(error):
                raise
        named = XML_ENTITY.sub(lambda entity: html.unescape(entity.group()), source)
        return ElementTree.fromstring(named)  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BrokenFileError("broken_xml", str(error)) from error


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def notebook_text(source: str) -> str:
    """Return the texts and the code of a Jupyter notebook, without its outputs."""
    try:
        book = json.loads(source)
        sheets = book.get("worksheets", [book])  # of the old format
        cells = [cell for sheet in sheets for cell in sheet.get("cells", [])]
        sources = ["".join(cell.get("source", cell.get("input", ""))) for cell in cells]
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BrokenFileError("broken_notebook", str(error)) from error
    return "\n\n".join(filter(None, sources))


TIMING = re.compile(r"[ \t]*(?:\d+:)?\d+:\d+[,.]\d+[ \t]*-->.*")
CUE_TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<\d[\d:.]*>|\{\\[^{}]*\}")
NOT_SPOKEN = ("NOTE", "STYLE", "REGION", "WEBVTT")
ASS_TAG = re.compile(r"\{[^{}]*\}")
ASS_DRAWING = re.compile(r"\{[^{}]*\\p[1-9]")


def subtitle_text(source: str) -> str:
    """Return the spoken lines of SRT, WebVTT or ASS subtitles."""
    source = source.replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")
    lines = _ass_lines(source) if "[Script Info]" in source[:1000] else _cue_lines(source)
    return "\n".join(line for line in map(str.strip, lines) if line)


def _cue_lines(source: str) -> Iterator[str]:
    """Yield the lines below times; a block without a time continues the one before."""
    spoken = False
    for block in re.split(r"\n[ \t]*\n", source):
        lines = block.strip("\n").split("\n")
        if lines[0].startswith(NOT_SPOKEN):
            continue
        times = [number for number, line in enumerate(lines) if TIMING.fullmatch(line)]
        if not times and not spoken:
            continue
        spoken = True
        for start, stop in zip([-1, *times], [*times, len(lines)], strict=True):
            text = lines[start + 1 : stop]
            if start < 0 and times:
                continue  # the name of the cue
            if stop < len(lines) and text and text[-1].strip().isdigit():
                text = text[:-1]  # the number of the next cue
            if start < 0 and len(text) == 1 and text[0].strip().isdigit():
                continue
            yield from (html.unescape(CUE_TAG.sub("", line)) for line in text)


def _ass_lines(source: str) -> Iterator[str]:
    fields = ["Text"]
    for line in source.split("\n"):
        kind, _, values = line.partition(":")
        if kind == "Format" and "Text" in values:
            fields = values.split(",")
        elif kind == "Dialogue":
            text = values.split(",", len(fields) - 1)[-1]
            if not ASS_DRAWING.search(text):
                plain = ASS_TAG.sub("", text).replace("\\h", " ")
                yield from re.split(r"\\[Nn]", plain)


read_html = _reader(html_text)
read_xml = _reader(xml_text)
read_notebook = _reader(notebook_text)
read_subtitles = _reader(subtitle_text)
