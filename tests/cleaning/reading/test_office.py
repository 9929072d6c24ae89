import io
import zipfile

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from tests.cleaning.reading.raw_files import read, texts
from tests.cleaning.reading.written import epub, odt


def without(path, name, replacement=None):
    """Rewrite an archive without a member, or with another content of it."""
    with zipfile.ZipFile(path) as old:
        contents = {each: old.read(each) for each in old.namelist() if each != name}
    if replacement is not None:
        contents[name] = replacement
    with zipfile.ZipFile(path, "w") as new:
        for each, data in contents.items():
            new.writestr(each, data)


def test_a_word_document_is_read_in_order(tmp_path):
    document = docx.Document()
    document.add_heading("Title", 0)
    paragraph = document.add_paragraph("Tab\there, ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run(" and\na new line.")
    document.add_paragraph("item", style="List Bullet")
    table = document.add_table(2, 2)
    for number, cell in enumerate(table._cells):
        cell.text = f"cell {number}"
    document.add_paragraph("The end.")
    document.sections[0].header.paragraphs[0].text = "header of each page"
    document.save(tmp_path / "a.docx")
    assert texts(read(tmp_path / "a.docx")) == [
        "Title\n\nTab\there, bold and\na new line.\n\nitem\n\ncell 0\tcell 1\ncell 2\tcell 3\n\n"
        "The end."
    ]


def test_inserted_text_stays_and_deleted_text_goes(tmp_path):
    document = docx.Document()
    paragraph = document.add_paragraph("A ")._p
    box = "<w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p></w:txbxContent>"
    for tag, inner in (
        ("ins", "<w:r><w:t>new</w:t></w:r>"),
        ("del", "<w:r><w:delText>old</w:delText></w:r>"),
        ("hyperlink", "<w:r><w:t> link</w:t></w:r>"),
        ("sdt", "<w:sdtContent><w:r><w:t> field</w:t></w:r></w:sdtContent>"),
        ("r", f"<w:pict>{box}</w:pict>"),
    ):
        paragraph.append(parse_xml(f"<w:{tag} {nsdecls('w')}>{inner}</w:{tag}>"))
    document.save(tmp_path / "a.docx")
    assert texts(read(tmp_path / "a.docx")) == ["A new link field\n\nbox"]


def test_footnotes_come_last(tmp_path):
    docx.Document().save(tmp_path / "a.docx")
    w = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    for name in ("document", "footnotes"):
        part = f"<w:x {w}><w:p><w:r><w:t>{name}</w:t></w:r></w:p></w:x>"
        without(tmp_path / "a.docx", f"word/{name}.xml", part)
    assert texts(read(tmp_path / "a.docx")) == ["document\n\nfootnotes"]


def test_an_opendocument_text_is_read_in_order(tmp_path):
    odt(tmp_path / "a.odt")
    body = (
        '<o:d xmlns:o="office" xmlns:text="text" xmlns:table="table"><o:body><o:text>'
        "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
        "<text:h>Heading</text:h><text:p>a <text:span>b</text:span><text:s/>c<text:tab/>d"
        "<text:note><text:note-citation>1</text:note-citation><text:note-body><text:p>note</text:p>"
        "</text:note-body></text:note> e</text:p><text:list><text:list-item><text:p>item</text:p>"
        "</text:list-item></text:list><table:table><table:table-row><table:table-cell><text:p>1"
        "</text:p></table:table-cell><table:table-cell><text:p>2</text:p></table:table-cell>"
        "</table:table-row></table:table></o:text></o:body></o:d>"
    )
    without(tmp_path / "a.odt", "content.xml", body)
    assert texts(read(tmp_path / "a.odt")) == ["Heading\n\na b c\td e\n\nnote\n\nitem\n\n1\t2"]


def test_an_encrypted_book_is_refused(tmp_path):
    epub(tmp_path / "a.epub")
    encryption = '<e><CipherReference URI="OEBPS/z.xhtml"/></e>'
    without(tmp_path / "a.epub", "META-INF/encryption.xml", encryption)
    assert texts(read(tmp_path / "a.epub")) == ["encrypted"]


@pytest.mark.parametrize("name", ["OEBPS/z.xhtml", "OEBPS/book.opf"])
def test_a_book_without_a_part_is_refused(tmp_path, name):
    epub(tmp_path / "a.epub")
    without(tmp_path / "a.epub", name)
    (item,) = read(tmp_path / "a.epub")
    assert item.reason == "broken_epub"
    assert name in item.detail


@pytest.mark.parametrize(
    ("password", "text"), [("secret", "encrypted"), ("", "Only the owner needs a password.")]
)
def test_only_a_pdf_that_needs_a_password_is_refused(tmp_path, password, text):
    canvas = Canvas(str(tmp_path / "a.pdf"), encrypt=StandardEncryption(password, "owner"))
    canvas.drawString(100, 700, "Only the owner needs a password.")
    canvas.save()
    assert texts(read(tmp_path / "a.pdf")) == [text]


def test_a_scanned_pdf_is_refused(tmp_path):
    canvas = Canvas(str(tmp_path / "a.pdf"))
    canvas.rect(1, 1, 50, 50)
    canvas.save()
    assert texts(read(tmp_path / "a.pdf")) == ["no_text_layer"]


@pytest.mark.parametrize(("folder", "advice"), [("xl", ".csv"), ("ppt", ".txt")])
def test_other_office_files_are_refused_with_advice(tmp_path, folder, advice):
    with zipfile.ZipFile(tmp_path / "a.docx", "w") as file:
        file.writestr("[Content_Types].xml", "")
        file.writestr(f"{folder}/x.xml", "")
    (item,) = read(tmp_path / "a.docx")
    assert item.reason == "unknown_kind"
    assert advice in item.detail


def test_a_zip_archive_named_docx_is_read_as_one(tmp_path):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.txt", "text")
    (tmp_path / "a.docx").write_bytes(out.getvalue())
    assert texts(read(tmp_path / "a.docx")) == ["text"]
