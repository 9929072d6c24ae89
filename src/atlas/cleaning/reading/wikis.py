"""Read Wikipedia: the output of WikiExtractor, and the XML dumps of MediaWiki."""

import html
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from atlas.cleaning.documents import Document
from atlas.cleaning.reading.containers import BrokenFileError, open_stream
from atlas.cleaning.reading.markup import decoded
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.cleaning.reading.streams import MAX_LINE, read_lines
from atlas.params.schema import CleanParams

MAX_ARTICLE = MAX_LINE
ARTICLES = "0"  # the namespace
DOC_START = re.compile(rb"\s*<doc id=[^>]*>\s*")
DOC_END = b"</doc>"
# Links to media and categories hold no text of the article.
MEDIA = re.compile(
    r"[:\s]*(?:file|image|category|datei|bild|kategorie|fichier|catégorie)\s*:", re.I
)
NO_TEXT = {"ref", "table", "gallery", "math", "timeline", "score", "references", "imagemap"}
MAGIC_WORD = re.compile(r"__[A-Z]+__")
EMPTY_LINES = re.compile(r"\n\s*\n+")


def read_wikiextractor(piece: Piece, _: CleanParams, notes: Notes) -> Iterator[Item]:
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
                yield _article(lines, size, number, piece, notes)
                lines = None
            else:
                size += len(line)
                if size <= MAX_ARTICLE:
                    lines.append(line)
    if lines is not None:
        notes.warnings.append(f"{piece.name}: the last article has no </doc>; is the file cut?")
        yield _article(lines, size, number, piece, notes)


def _article(lines: list[bytes], size: int, number: int, piece: Piece, notes: Notes) -> Item:
    identity = f"{piece.name}:{number}"
    if size > MAX_ARTICLE:
        return Rejection(identity, "text_too_long", f"more than {MAX_ARTICLE:,} bytes")
    text = html.unescape(decoded(b"".join(lines), piece, notes))
    return Document(identity, piece.name, text.strip())


def read_mediawiki(piece: Piece, _: CleanParams, __: Notes) -> Iterator[Item]:
    """Read the articles of a dump; redirects and pages of other namespaces are rejected."""
    with open_stream(piece) as stream:
        try:
            pages = ElementTree.iterparse(stream, events=("start", "end"))  # noqa: S314
            root = next(pages)[1]
            for event, element in pages:
                if event == "end" and element.tag.endswith("}page"):
                    yield _page(element, piece)
                    root.clear()
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            raise BrokenFileError("broken_mediawiki", str(error)) from error


def _page(page: ElementTree.Element, piece: Piece) -> Item:
    def found(path: str) -> str:
        return page.findtext("/".join(f"{{*}}{tag}" for tag in path.split("/"))) or ""

    title = found("title")
    identity = f"{piece.name}:{found('id') or title}"
    if found("ns") != ARTICLES:
        return Rejection(identity, "other_namespace", title)
    source = found("revision/text")
    if page.find("{*}redirect") is not None:
        return Rejection(identity, "redirect", title)
    return Document(identity, piece.name, f"{title}\n\n{wiki_text(source)}".strip())


def wiki_text(source: str) -> str:
    """Return the text of a page in wiki markup, without templates, tables and notes."""
    import mwparserfromhell

    code: Any = mwparserfromhell.parse(source)
    for node in code.filter(matches=lambda node: _has_no_text(node), recursive=code.RECURSE_OTHERS):
        code.remove(node)
    lines = str(code.strip_code(collapse=False)).split("\n")
    text = "\n".join(line.strip() for line in lines)
    return EMPTY_LINES.sub("\n\n", MAGIC_WORD.sub("", text)).strip()


def _has_no_text(node: Any) -> bool:
    from mwparserfromhell.nodes import Tag, Wikilink

    if isinstance(node, Wikilink):
        return bool(MEDIA.match(str(node.title)))
    return isinstance(node, Tag) and str(node.tag).strip().lower() in NO_TEXT
