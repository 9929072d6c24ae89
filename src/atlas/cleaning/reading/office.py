"""Read documents of word processors and readers: EPUB, DOCX, ODT, PDF."""

import contextlib
import logging
import posixpath
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from atlas.cleaning.reading.containers import BrokenFileError, open_seekable
from atlas.cleaning.reading.decoding import NotTextError
from atlas.cleaning.reading.markup import MAX_MARKUP, decoded, html_text, parse_xml, text_blocks
from atlas.cleaning.reading.pieces import Item, Notes, Piece, Rejection
from atlas.params.schema import CleanParams

PARAGRAPHS = {"p", "h"}
ROWS, CELLS = {"tr", "table-row"}, {"tc", "table-cell"}
SIGNS = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "s": " ", "noBreakHyphen": "-"}
SEPARATE = {"txbxContent", "note-body"}  # boxes and notes, read after their paragraph
# Properties, deleted text, field codes, comments, and copies for old readers.
NOT_TEXT = {
    *("pPr", "rPr", "sectPr", "tblPr", "trPr", "tcPr", "del", "moveFrom", "instrText"),
    *("Fallback", "tracked-changes", "annotation", "note-citation", "desc", "title"),
}
RELATIONS = "_rels/.rels"
NOTES_PARTS = ("footnotes.xml", "endnotes.xml")
MAX_ERROR = 200  # characters of a library's message


@contextlib.contextmanager
def _opened(piece: Piece, kind: str) -> Iterator[BinaryIO]:
    """Open a document; any error of its parser means that it is damaged."""
    with open_seekable(piece) as stream:
        try:
            yield stream
        except (BrokenFileError, NotTextError):
            raise
        except Exception as error:  # parsers raise anything for damaged data
            detail = f"{type(error).__name__}: {error}"[:MAX_ERROR]
            raise BrokenFileError(f"broken_{kind}", detail) from error


def _part(archive: zipfile.ZipFile, name: str) -> bytes:
    info = archive.getinfo(name)
    if info.file_size > MAX_MARKUP:
        raise BrokenFileError("too_large", f"{name} has more than {MAX_MARKUP:,} bytes")
    return archive.read(info)


def _local(element: Element) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def _find_all(element: Element, name: str) -> Iterator[Element]:
    return (each for each in element.iter() if _local(each) == name)


def read_epub(piece: Piece, _: CleanParams, notes: Notes) -> Iterator[Item]:
    """Read a book: its chapters in reading order, as one document."""
    with _opened(piece, "epub") as stream, zipfile.ZipFile(stream) as archive:
        root = parse_xml(_part(archive, "META-INF/container.xml"))
        package = next(_find_all(root, "rootfile")).attrib["full-path"]
        book = parse_xml(_part(archive, package))
        items = {item.attrib["id"]: item for item in _find_all(book, "item")}
        names = [
            posixpath.normpath(
                posixpath.join(posixpath.dirname(package), unquote(item.attrib["href"]))
            )
            for reference in _find_all(book, "itemref")
            if (item := items.get(reference.attrib.get("idref", ""))) is not None
            and "html" in item.attrib.get("media-type", "html")
            and "nav" not in item.attrib.get("properties", "").split()
        ]
        if "META-INF/encryption.xml" in archive.namelist():
            encryption = parse_xml(_part(archive, "META-INF/encryption.xml"))
            hidden = {each.attrib.get("URI") for each in _find_all(encryption, "CipherReference")}
            if hidden.intersection(names):
                raise BrokenFileError("encrypted", "its chapters are encrypted (DRM)")
        chapters = [
            html_text(decoded(_part(archive, name), piece, notes), xhtml=True) for name in names
        ]
    yield from text_blocks("\n\n".join(filter(None, chapters)), piece)


def read_docx(piece: Piece, _: CleanParams, __: Notes) -> Iterator[Item]:
    """Read a Word document: paragraphs and tables in order, then foot- and endnotes."""
    with _opened(piece, "docx") as stream, zipfile.ZipFile(stream) as archive:
        relations = parse_xml(_part(archive, RELATIONS))
        main = next(
            each.attrib["Target"].lstrip("/")
            for each in _find_all(relations, "Relationship")
            if each.attrib["Type"].endswith("/officeDocument")
        )
        folder = posixpath.dirname(main)
        parts = [main, *(posixpath.join(folder, name) for name in NOTES_PARTS)]
        present = set(archive.namelist())
        roots = [parse_xml(_part(archive, name)) for name in parts if name in present]
        text = "\n\n".join(block for root in roots for block in _blocks(root, _word_text))
    yield from text_blocks(text, piece)


def read_odt(piece: Piece, _: CleanParams, __: Notes) -> Iterator[Item]:
    """Read an OpenDocument text: paragraphs, headings, lists and tables in order."""
    with _opened(piece, "odt") as stream, zipfile.ZipFile(stream) as archive:
        root = parse_xml(_part(archive, "content.xml"))
        bodies = list(_find_all(root, "body"))
        text = "\n\n".join(block for body in bodies for block in _blocks(body, _any_text))
    yield from text_blocks(text, piece)


TextOf = Callable[[Element], tuple[str, str]]  # text at the start and after an element


def _word_text(element: Element) -> tuple[str, str]:
    return (element.text or "") if _local(element) == "t" else "", ""


def _any_text(element: Element) -> tuple[str, str]:
    return element.text or "", element.tail or ""


def _blocks(element: Element, text_of: TextOf) -> Iterator[str]:
    """Yield the paragraphs and tables below an element."""
    for child in element:
        name = _local(child)
        if name in PARAGRAPHS:
            separate: list[Element] = []
            text = "".join(_inline(child, text_of, separate)).strip("\n")
            if text.strip():
                yield text
            for each in separate:
                yield from _blocks(each, text_of)
        elif name in ("tbl", "table"):
            rows = "\n".join(_rows(child, text_of))
            if rows.strip():
                yield rows
        elif name not in NOT_TEXT:
            yield from _blocks(child, text_of)


def _rows(table: Element, text_of: TextOf) -> Iterator[str]:
    for child in table:
        if _local(child) in ROWS:
            cells = [each for each in child.iter() if _local(each) in CELLS]
            texts = (" ".join(" ".join(_blocks(cell, text_of)).split()) for cell in cells)
            yield "\t".join(texts)
        else:
            yield from _rows(child, text_of)  # header rows, content controls


def _inline(element: Element, text_of: TextOf, separate: list[Element]) -> Iterator[str]:
    """Yield the text of a paragraph; collect the boxes and notes in it."""
    name = _local(element)
    if name in SEPARATE:
        separate.append(element)
    elif name not in NOT_TEXT:
        yield SIGNS.get(name, "")
        yield text_of(element)[0]
        for child in element:
            yield from _inline(child, text_of, separate)
            yield text_of(child)[1]


def read_pdf(piece: Piece, _: CleanParams, __: Notes) -> Iterator[Item]:
    """Read the text layer of a PDF; pages are separated by blank lines."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it explains each oddity of a file
    with _opened(piece, "pdf") as stream:
        try:
            pages: list[Any] = list(PdfReader(stream).pages)
            texts = [page.extract_text().strip() for page in pages]
        except (FileNotDecryptedError, DependencyError):
            raise BrokenFileError("encrypted", "it needs a password") from None
    if any(texts):
        yield from text_blocks("\n\n".join(filter(None, texts)), piece)
    else:
        detail = f"none of its {len(texts)} pages has text: recognize its pictures first (OCR)"
        yield Rejection(piece.name, "no_text_layer", detail)
