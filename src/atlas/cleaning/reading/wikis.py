"""Read Wikipedia: the output of WikiExtractor, and the XML dumps of MediaWiki."""

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any
from xml.etree import ElementTree

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.containers import BrokenFileError, open_stream
from atlas.cleaning.reading.markup import decoded
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.streams import MAX_BLOCK, read_lines
from atlas.params.schema import CleanParams

MAX_ARTICLE = MAX_BLOCK  # bytes
ARTICLES = "0"  # the namespace
DOC_START = re.compile(rb"\s*<doc id=[^>]*>\s*")
DOC_END = b"</doc>"
# Namespaces of media and categories: links there hold no text of the article.
MEDIA_KEYS = {"6", "14"}
MEDIA_NAMES = "file|image|category|datei|bild|kategorie|fichier|catégorie|archivo|imagen|categoría"
LANGUAGE_LINK = r"[a-z]{2,3}(?:-[a-z]+)*"  # to the same article in another language
NO_TEXT = {"ref", "table", "gallery", "math", "timeline", "score", "references", "imagemap"}
TEMPLATES = {"lang": 2, "transl": 2, "nowrap": 1, "nobr": 1, "abbr": 1, "small": 1}  # their text
MAGIC_WORD = re.compile(r"__[A-Z]+__")
EMPTY_BRACKETS = re.compile(r" \([\s;,]*\)")  # around a removed template
SPACES = re.compile(r"[ \t]{2,}")
LINE_EDGES = re.compile(r"^[ \t]+|[ \t]+$", re.M)
EMPTY_LINES = re.compile(r"\n\s*\n+")


def read_wikiextractor(piece: Piece, clean: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a document per ``<doc>``; its text has entities for ``&``, ``<`` and ``>``."""
    lines: list[bytes] | None = None
    number = size = 0
    with open_stream(piece) as stream:
        for line in read_lines(stream, 0, None):
            if line is None:
                size = MAX_ARTICLE + 1
            elif lines is None:
                if DOC_START.fullmatch(line):
                    lines, size = [], 0
                    number += 1
            elif line.strip() == DOC_END:
                yield _article(lines, size, number, piece, clean, notes)
                lines = None
            else:
                size += len(line)
                if size <= MAX_ARTICLE:
                    lines.append(line)
    if lines is not None:
        notes.warn(f"{piece.name}: the last article has no </doc>; is the file cut?")
        yield _article(lines, size, number, piece, clean, notes)


def _article(
    lines: list[bytes], size: int, number: int, piece: Piece, clean: CleanParams, notes: Notes
) -> Item:
    identity = f"{piece.name}:{number}"
    if size > MAX_ARTICLE:
        return Rejection(identity, "text_too_long", f"more than {MAX_ARTICLE:,} bytes")
    text = html.unescape(decoded(b"".join(lines), piece, notes, clean.encoding))
    return Document(identity, piece.name, text.strip())


def read_mediawiki(piece: Piece, _: CleanParams, __: Notes) -> Iterator[Item]:
    """Read the articles of a dump; redirects and pages of other namespaces are rejected."""
    names = [MEDIA_NAMES]
    with open_stream(piece) as stream:
        try:
            elements = ElementTree.iterparse(stream, events=("start", "end"))  # noqa: S314
            root = next(elements)[1]
            for event, element in elements:
                tag = element.tag.rpartition("}")[2]
                if event == "start":
                    continue
                if tag == "namespace" and element.get("key") in MEDIA_KEYS and element.text:
                    names.append(re.escape(element.text.lower()))
                elif tag == "page":
                    yield _page(element, piece, _media(names))
                    root.clear()
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise BrokenFileError("broken_mediawiki", str(error)) from error


def _media(names: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\s*(?:(?i:{'|'.join(names)})|{LANGUAGE_LINK})\s*:")


def _page(page: ElementTree.Element, piece: Piece, media: re.Pattern[str]) -> Item:
    def found(path: str) -> str:
        return page.findtext("/".join(f"{{*}}{tag}" for tag in path.split("/"))) or ""

    title = found("title")
    identity = f"{piece.name}:{found('id') or title}"
    if found("ns") != ARTICLES:
        return Rejection(identity, "other_namespace", title)
    if page.find("{*}redirect") is not None:
        return Rejection(identity, "redirect", title)
    try:
        text = wiki_text(found("revision/text"), media)
    except Exception as error:  # the parser raises anything for odd markup
        return Rejection(identity, "broken_markup", f"{type(error).__name__}: {error}")
    if len(text) > MAX_ARTICLE:
        return Rejection(identity, "text_too_long", f"more than {MAX_ARTICLE:,} characters")
    return Document(identity, piece.name, f"{title}\n\n{text}" if text else "")


def wiki_text(source: str, media: re.Pattern[str]) -> str:
    """Return the text of a page in wiki markup, without templates, tables, notes and media."""
    import mwparserfromhell

    text = "".join(_texts(mwparserfromhell.parse(source), media))
    text = SPACES.sub(" ", EMPTY_BRACKETS.sub("", MAGIC_WORD.sub("", text)))
    text = LINE_EDGES.sub("", text)
    return EMPTY_LINES.sub("\n\n", text).strip()


def _texts(code: Any, media: re.Pattern[str]) -> Iterator[str]:
    from mwparserfromhell import nodes

    for node in code.nodes:
        match node:
            case nodes.Text():
                yield str(node.value)
            case nodes.Wikilink() if not media.match(str(node.title)):
                yield from _texts(node.text if node.text is not None else node.title, media)
            case nodes.ExternalLink() if node.title is not None:
                yield from _texts(node.title, media)
            case nodes.ExternalLink():
                yield str(node.url)
            case nodes.Heading():
                yield "\n"
                yield from _texts(node.title, media)
                yield "\n"
            case nodes.HTMLEntity():
                yield str(node.normalize())
            case nodes.Template():
                position = TEMPLATES.get(str(node.name).strip().lower())
                if position and node.has(position):
                    yield from _texts(node.get(position).value, media)
            case nodes.Tag():
                name = str(node.tag).strip().lower()
                if name == "br":
                    yield "\n"
                elif name not in NO_TEXT and node.contents is not None:
                    yield from _texts(node.contents, media)
