import codecs
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.decoding import NotTextError, decode

FRENCH = "« Où est l\u2019élève ? » — demanda-t-il, près du château… "
CASES = [
    (FRENCH.encode(), "utf-8", False),
    (codecs.BOM_UTF8 + FRENCH.encode(), "utf-8-sig", False),
    (FRENCH.encode("utf-16"), "utf-16", False),
    (codecs.BOM_UTF16_BE + FRENCH.encode("utf-16-be"), "utf-16", False),
    (codecs.BOM_UTF32_LE + FRENCH.encode("utf-32-le"), "utf-32", False),
    (codecs.BOM_UTF32_BE + FRENCH.encode("utf-32-be"), "utf-32", False),
    (FRENCH.encode("utf-16-le"), "utf-16-le", True),
    (FRENCH.encode("utf-16-be"), "utf-16-be", True),
    (FRENCH.encode("cp1252"), "cp1252", True),
]


@pytest.mark.parametrize(("data", "encoding", "guessed"), CASES)
def test_encodings(data, encoding, guessed):
    decoded = decode(data)
    assert (decoded.text, decoded.encoding, decoded.guessed) == (FRENCH, encoding, guessed)


def test_a_few_broken_bytes_do_not_lose_the_rest():
    data = (FRENCH * 20).encode() + b"\xff\xc3 end"
    decoded = decode(data)
    assert decoded.encoding == "utf-8"
    assert decoded.text.startswith(FRENCH * 20)
    assert decoded.text.endswith("\ufffd\ufffd end")


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x01\x00\x00\x00\x01\x00",
        bytes(range(256)) * 10,
        b"\x7fELF" + bytes(1000),
    ],
)
def test_binary_files_are_no_text(data):
    with pytest.raises(NotTextError):
        decode(data)


def test_random_bytes_are_no_text():
    with pytest.raises(NotTextError):
        decode(os.urandom(10_000))


def test_empty_is_text():
    assert decode(b"").text == ""


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=200))
def test_every_utf8_text_comes_back(text):
    decoded = decode(text.encode())
    if text.startswith("\ufeff"):
        text = text[1:]
    assert decoded.text == text


@pytest.mark.parametrize(
    "name",
    [
        "bom_crlf.txt",
        "cp1252_no_declaration.txt",
        "invalid_utf8.txt",
        "nul_bytes.txt",
        "utf16le_bom.txt",
    ],
)
def test_real_faulty_files_are_text(corpora, name):
    assert len(decode((corpora / "dirty" / name).read_bytes()).text) > 20_000
