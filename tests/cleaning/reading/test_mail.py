import mailbox
from email.message import EmailMessage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest

from atlas.cleaning.reading.pieces import Notes
from tests.cleaning.reading.raw_files import read, read_all, texts
from tests.cleaning.reading.written import message


@pytest.mark.parametrize(
    ("charset", "body"),
    [
        ("utf-8", "Größe, 漢字"),
        ("iso-8859-15", "10 € für Größe"),
        ("koi8-r", "Привет, как дела?"),
        ("iso-2022-jp", "日本語の文章です。"),
    ],
)
@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_body_is_decoded_as_declared(tmp_path, charset, body, encoding):
    mail = EmailMessage()
    mail["Subject"] = "x"
    mail.set_content(body, charset=charset, cte=encoding)
    (tmp_path / "a.eml").write_bytes(mail.as_bytes())
    assert texts(read(tmp_path / "a.eml")) == [body]


def test_an_undeclared_or_wrong_charset_is_guessed(tmp_path):
    for number, header in enumerate(("", "Content-Type: text/plain; charset=nonsense\n")):
        data = f"From: a@b.c\nSubject: x\n{header}\nLes élèves ont déjà été là.\n".encode("latin-1")
        (tmp_path / f"{number}.eml").write_bytes(data)
    assert texts(read_all(tmp_path, ["0.eml", "1.eml"])) == ["Les élèves ont déjà été là."] * 2


def test_plain_text_is_preferred_and_attachments_are_counted(tmp_path):
    mail = MIMEMultipart()
    forwarded = EmailMessage()
    forwarded.set_content("<p>Only <b>HTML</b></p>", subtype="html")
    mail.attach(message("plain"))
    mail.attach(MIMEText("second part"))
    mail.attach(MIMEMessage(forwarded))
    (tmp_path / "a.eml").write_bytes(b"Subject: x\n" + mail.as_bytes())
    notes = Notes()
    (item,) = read_all(tmp_path, ["a.eml"], notes)
    assert item.text == "plain\n\nsecond part\n\nOnly HTML"
    assert notes.counts["skipped_attachments"] == 1


def test_each_message_of_a_mailbox_is_a_document(tmp_path):
    bodies = ["one", "From the start\n\nFrom here\n\n>From there", "three"]
    box = mailbox.mbox(tmp_path / "box.mbox")
    for body in bodies:
        box.add(message(body))
    box.close()
    items = read(tmp_path / "box.mbox")
    assert [item.id for item in items] == [f"box.mbox:{number}" for number in (1, 2, 3)]
    assert texts(items)[0::2] == ["one", "three"]
    assert items[1].text.startswith("From the start\n\nFrom here")


def test_news_and_mail_without_a_suffix_are_recognized(tmp_path):
    (tmp_path / "49960").write_text("From: a@b.c\nSubject: x\nOrganization: y\n\nThe body.\n")
    (tmp_path / "letter").write_text("From: me\n\nThis is a letter, not a mail.\n")
    items = read_all(tmp_path, ["49960", "letter"])
    assert texts(items) == ["The body.", "From: me\n\nThis is a letter, not a mail.\n"]
