import bz2
import html

import pytest

from atlas.cleaning.reading.pieces import Notes
from tests.cleaning.reading.raw_files import STORIES, jsonl, read, read_all, texts


def doc(number, text):
    escaped = html.escape(text, quote=False)
    start = f'<doc id="{number}" url="https://x?curid={number}" title="T {number}">'
    return f"{start}\n{escaped}\n\n</doc>\n"


@pytest.mark.parametrize("name", ["wiki_00", "a.txt", "AA.wiki_07"])
def test_each_article_of_wikiextractor_is_a_document(tmp_path, name):
    articles = [*STORIES, "a < b & &lt;c&gt;\n\nsecond"]
    (tmp_path / name).write_text("".join(map(doc, range(6), articles)))
    items = read(tmp_path / name)
    assert texts(items) == articles
    assert [item.id for item in items] == [f"{name}:{number}" for number in range(1, 7)]


def test_articles_as_json_are_read_without_a_suffix(tmp_path):
    (tmp_path / "wiki_00").write_bytes(jsonl(*STORIES))
    assert texts(read(tmp_path / "wiki_00")) == STORIES


def test_the_last_article_of_a_cut_file_is_named(tmp_path):
    (tmp_path / "wiki_00").write_text(doc(1, "one") + doc(2, "two").partition("\n\n</doc>")[0])
    notes = Notes()
    assert texts(read_all(tmp_path, ["wiki_00"], notes)) == ["one", "two"]
    assert "no </doc>" in notes.warnings[0]


def dump(*pages, namespaces=""):
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><namespaces>'
        f"{namespaces}</namespaces></siteinfo>{''.join(pages)}</mediawiki>"
    )


def page(number, text, namespace=0, extra=""):
    return (
        f"<page><title>T{number}</title><ns>{namespace}</ns><id>{number}</id>{extra}<revision>"
        f"<id>9</id><text>{html.escape(text)}</text></revision></page>"
    )


def test_articles_of_a_dump_are_documents(tmp_path):
    pages = [
        page(1, "'''One''' is a [[number|count]].<ref>Note</ref>"),
        page(2, "talk", namespace=1),
        page(3, "#REDIRECT [[T1]]", extra='<redirect title="T1"/>'),
        page(4, "Two"),
    ]
    data = dump(*pages).encode()
    half = len(data) // 2
    (tmp_path / "wiki.xml.bz2").write_bytes(bz2.compress(data[:half]) + bz2.compress(data[half:]))
    items = read(tmp_path / "wiki.xml.bz2")
    assert texts(items) == ["T1\n\nOne is a count.", "other_namespace", "redirect", "T4\n\nTwo"]
    assert items[0].id == "wiki.xml.bz2:1"


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("== Heading ==\nText\n* item\n# number", "Heading\n\nText\nitem\nnumber"),
        ("A {{cite|x}} b ({{lang|fr|beau}}) c ({{x}}).", "A b (beau) c."),
        ("{| class=x\n! a\n|-\n| b\n|}\nText", "Text"),
        ("[[File:a.jpg|thumb|A [[b]]]]Text [[Category:C]]", "Text"),
        ("[[Файл:a.jpg|мини]]Текст [[:Category:C|see C]] [[de:Ding]]", "Текст see C"),
        ("[http://x.org label] <!-- c --> <nowiki>''x''</nowiki>", "label ''x''"),
        ("a&nbsp;b &lt;i&gt; <br/> c __NOTOC__", "a\xa0b <i>\nc"),
        ("[[unclosed {{also ''this", "[[unclosed {{also ''this"),
    ],
)
def test_wiki_markup_becomes_text(tmp_path, markup, text):
    names = '<namespace key="6">Файл</namespace>'
    (tmp_path / "a.xml").write_text(dump(page(1, markup), namespaces=names), encoding="utf-8")
    (item,) = read(tmp_path / "a.xml")
    assert item.text == f"T1\n\n{text}"


def test_a_cut_dump_gives_its_articles_and_a_reason(tmp_path):
    (tmp_path / "a.xml").write_text(dump(page(1, "One"), page(2, "Two"))[:-80])
    assert texts(read(tmp_path / "a.xml")) == ["T1\n\nOne", "broken_mediawiki"]
