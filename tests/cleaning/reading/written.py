"""Files of each document format, made by its usual writer, with the text that they hold."""

import io
import json
import mailbox
import zipfile
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

PARAGRAPHS = ["The first paragraph, with “quotes” & an é.", "The second one: 1 < 2."]
ODT = ("office", "text")  # namespaces
HTML = (
    "<!DOCTYPE html><html><head><title>No text</title><style>p {}</style></head><body><p>"
    "The first paragraph, with &ldquo;quotes&rdquo; &amp; an &eacute;.</p>"
    "<script>var x = '<p>';</script><p>The <b>second</b> one: 1 &lt; 2.</p></body></html>"
)


def html(path: Path) -> None:
    path.write_text(HTML)


def docx(path: Path) -> None:
    from docx import Document

    document = Document()
    for paragraph in PARAGRAPHS:
        document.add_paragraph(paragraph)
    document.save(path)


def epub(path: Path) -> None:
    chapter = (
        '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml">'
        "<head><title/></head><body><h1/><p>{}</p></body></html>"
    )
    escaped = [each.replace("&", "&amp;").replace("<", "&lt;") for each in PARAGRAPHS]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        book.writestr(
            "META-INF/container.xml",
            '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
            '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        )
        book.writestr(
            "OEBPS/book.opf",
            '<package xmlns="http://www.idpf.org/2007/opf"><manifest>'
            '<item id="b" href="text/a%20last.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="a" href="z.xhtml" media-type="application/xhtml+xml"/>'
            '<item id="n" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>'
            '</manifest><spine><itemref idref="n"/><itemref idref="a"/><itemref idref="b"/></spine>'
            "</package>",
        )
        book.writestr("OEBPS/text/a last.xhtml", chapter.format(escaped[1]))
        book.writestr("OEBPS/z.xhtml", chapter.format(escaped[0]))
        book.writestr("OEBPS/nav.xhtml", chapter.format("Contents"))


def odt(path: Path) -> None:
    escaped = [each.replace("&", "&amp;").replace("<", "&lt;") for each in PARAGRAPHS]
    body = "".join(f"<text:p>{each}</text:p>" for each in escaped)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as document:
        document.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        office, text = (f"urn:oasis:names:tc:opendocument:xmlns:{name}:1.0" for name in ODT)
        document.writestr(
            "content.xml",
            f'<o:document-content xmlns:o="{office}" xmlns:text="{text}"><o:body><o:text>{body}'
            "</o:text></o:body></o:document-content>",
        )


def pdf(path: Path) -> None:
    from reportlab.pdfgen.canvas import Canvas

    canvas = Canvas(str(path))
    for paragraph in PARAGRAPHS:
        canvas.drawString(100, 700, paragraph)
        canvas.showPage()
    canvas.save()


def eml(path: Path) -> None:
    path.write_bytes(message().as_bytes())


def message(body: str = "\n\n".join(PARAGRAPHS)) -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@b.c", "d@e.f", "Größe"
    mail.set_content(body, charset="iso-8859-15" if "“" not in body else "utf-8")
    mail.add_alternative("<p>other</p>", subtype="html")
    mail.add_attachment(b"\x00\x01", maintype="image", subtype="png", filename="a.png")
    return mail


def mbox(path: Path) -> None:
    box = mailbox.mbox(path)
    box.add(message())
    box.close()


def srt(path: Path) -> None:
    from pysubs2 import SSAEvent, SSAFile

    subtitles = SSAFile()
    for number, paragraph in enumerate(PARAGRAPHS):
        text = "{\\an8}{\\i1}" + paragraph + "{\\i0}"
        subtitles.append(SSAEvent(number * 2000, number * 2000 + 1000, text))
    subtitles.save(str(path))


def ipynb(path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": [PARAGRAPHS[0][:9], PARAGRAPHS[0][9:]]},
        {"cell_type": "code", "source": PARAGRAPHS[1], "outputs": [{"text": "no"}]},
    ]
    path.write_text(json.dumps({"cells": cells, "nbformat": 4}))


def xml(path: Path) -> None:
    from xml.etree import ElementTree

    root = ElementTree.Element("book")
    for paragraph in PARAGRAPHS:
        ElementTree.SubElement(root, "p").text = paragraph
    ElementTree.ElementTree(root).write(path, "iso-8859-1", xml_declaration=True)


WRITERS: dict[str, Callable[[Path], None]] = {
    "a.html": html,
    "a.docx": docx,
    "a.epub": epub,
    "a.odt": odt,
    "a.pdf": pdf,
    "a.eml": eml,
    "a.mbox": mbox,
    "a.srt": srt,
    "a.vtt": srt,
    "a.ass": srt,
    "a.ipynb": ipynb,
    "a.xml": xml,
}


def written(name: str, folder: Path) -> bytes:
    path = folder / name
    WRITERS[name](path)
    return path.read_bytes()


def tarred(contents: dict[str, bytes], mode: str = "w") -> bytes:
    import tarfile

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()
