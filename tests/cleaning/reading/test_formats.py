"""Each format is read to its text, under its own name and under others."""

import re

import pytest

from tests.cleaning.reading.raw_files import archive, read, texts
from tests.cleaning.reading.written import PARAGRAPHS, WRITERS, tarred, written


def words(text):
    return re.sub(r"\s+", " ", text).strip()


@pytest.mark.parametrize("name", WRITERS)
def test_a_document_is_read_to_its_text(tmp_path, name):
    WRITERS[name](tmp_path / name)
    (item,) = read(tmp_path / name)
    assert words(item.text) == " ".join(PARAGRAPHS)
    assert item.id.startswith(name)


@pytest.mark.parametrize("name", [name for name in WRITERS if name not in ("a.xml", "a.ipynb")])
@pytest.mark.parametrize("other", ["a.txt", "a", "a.bin"])
def test_content_is_recognized_under_another_name(tmp_path, name, other):
    if (name, other) == ("a.eml", "a.txt"):
        pytest.skip("mail headers in a text file are text")
    (tmp_path / other).write_bytes(written(name, tmp_path))
    (item,) = read(tmp_path / other)
    assert words(item.text) == " ".join(PARAGRAPHS)


@pytest.mark.parametrize("name", WRITERS)
def test_documents_are_read_from_archives(tmp_path, name):
    data = written(name, tmp_path)
    (tmp_path / "b.tar.xz").write_bytes(tarred({name: data}, "w:xz"))
    archive(tmp_path / "b.zip", {name: data, "inner.tar": tarred({name: data})})
    for packed, count in (("b.tar.xz", 1), ("b.zip", 2)):
        items = read(tmp_path / packed)
        assert [words(text) for text in texts(items)] == [" ".join(PARAGRAPHS)] * count
