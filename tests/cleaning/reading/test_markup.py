from itertools import pairwise

import pytest

from atlas.cleaning.reading import markup
from atlas.cleaning.reading.markup import html_text, subtitle_text, xml_text
from atlas.cleaning.reading.pieces import Notes
from tests.cleaning.reading.raw_files import read, read_all, texts


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>One.</p><p>Two.</p>", "One.\n\nTwo."),
        ("<p>A  <b>bold</b>\n word<i>s</i>.<br>Next", "A bold words.\nNext"),
        ("<div>a</div><div>b</div>", "a\nb"),
        ("<pre>def f():\n    return 1\n\n\n# end</pre>", "def f():\n    return 1\n\n\n# end"),
        ("<ul><li>one<li>two</ul>", "  • one\n  • two"),
        ("<ol><li>one<li>two</ol>", "  1. one\n  2. two"),
        ("Caf&eacute; &amp;amp; &#8212; &lt;b&gt; 1 < 2", "Café &amp; — <b> 1 < 2"),
        ("<title>T</title><style>s</style><script>x='<p>'</script><!-- c -->text", "text"),
        ("<figure><img alt=A><figcaption>Cap</figcaption></figure>", "Cap"),
        ("<label>Name</label> <select><option>a</option></select>", "Name\na"),
        ("<details><summary>Sum</summary>body</details>", "Sum\nbody"),
        ("<?xml version='1.0'?><html><head><title/></head><body><p>a</p></body></html>", "a"),
        ("<p hidden>kept", "kept"),
    ],
)
def test_the_text_of_a_page(page, text):
    assert html_text(page).strip("\n") == text


def test_the_cells_of_a_table_are_separate(tmp_path):
    lines = html_text("<table><tr><th>a<th>b<tr><td>1<td>2</table>").split("\n")
    assert [line.split() for line in lines] == [["a", "b"], ["1", "2"]]


def test_a_page_is_decoded_as_it_declares(tmp_path):
    page = '<html><meta charset="iso-8859-2"><p>Žluťoučký kůň pěl</p></html>'
    (tmp_path / "a.html").write_bytes(page.encode("iso-8859-2"))
    assert texts(read(tmp_path / "a.html")) == ["Žluťoučký kůň pěl"]


def test_a_very_long_page_is_several_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(markup, "MAX_BLOCK", 1000)
    paragraphs = [f"Paragraph {number} of many." for number in range(500)] + ["x" * 3000]
    (tmp_path / "a.html").write_text("<html>" + "".join(f"<p>{each}" for each in paragraphs))
    items = read(tmp_path / "a.html")
    assert "".join(texts(items)) == "\n\n".join(paragraphs)
    assert max(map(len, texts(items))) == 1000
    assert len({item.id for item in items}) == len(items)
    assert [item.text.endswith(".\n\n") for item in items[:-4]] == [True] * (len(items) - 4)


def test_a_page_too_large_for_memory_is_refused(tmp_path):
    (tmp_path / "a.html").write_bytes(b"<html>" + b"text " * (7 << 20))
    (item,) = read(tmp_path / "a.html")
    assert item.reason == "too_large"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<r><a>one</a><b><c>two</c></b></r>", "one\n\ntwo"),
        ("<r><p>a <b>bold</b>\n word</p><p/></r>", "a bold\nword"),
        ("<r><text>para one\n\n  para two</text></r>", "para one\n\npara two"),
        ("<r>&nbsp;a &amp; &eacute;</r>", "a & é"),
        (
            "<FictionBook><description><id>x</id></description><body><p>text</p></body>"
            "<binary>AAAA</binary></FictionBook>",
            "text",
        ),
        ("<TEI><teiHeader>x</teiHeader><text><body><p>y</p></body></text></TEI>", "y"),
    ],
)
def test_the_text_of_xml(source, text):
    assert xml_text(source) == text


def test_entities_neither_swell_nor_read_files(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    names = [chr(ord("a") + number) for number in range(10)]
    swelling = "".join(
        f'<!ENTITY {name} "{f"&{before};" * 50}">' for before, name in pairwise(names)
    )
    sources = {
        "swells.xml": f'<!DOCTYPE r [<!ENTITY a "aaaa">{swelling}]><r>&j;</r>',
        "reads.xml": f'<!DOCTYPE r [<!ENTITY x SYSTEM "{secret.as_uri()}">]><r>&x;</r>',
    }
    for name, source in sources.items():
        (tmp_path / name).write_text(f'<?xml version="1.0"?>{source}')
    items = read_all(tmp_path, sorted(sources))
    assert [item.reason for item in items] == ["broken_xml"] * 2


SRT = "1\n00:00:01,000 --> 00:00:03,500\n<i>Hello</i> there.\n\n2\n00:00:04,000 --> 00:00:06,000\n"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (SRT + "{\\an8}How are\nyou?\n", "Hello there.\nHow are\nyou?"),
        (SRT.replace("\n", "\r\n") + "1984\r\n", "Hello there.\n1984"),
        ("\ufeff" + SRT + "a < b\n\nstill spoken\n\n", "Hello there.\na < b\nstill spoken"),
        (SRT.replace("\n\n", "\n") + "Go!", "Hello there.\nGo!"),
        (
            "WEBVTT - title\nKind: captions\n\nSTYLE\n::cue { color: red }\n\nNOTE said\nnever\n\n"
            "intro\n00:01.000 --> 00:02.000 align:start\n<v Ann>Hi &amp; <c.x>bye</c></v>"
            "<00:01.500> you\n\nNOTE x\n",
            "Hi & bye you",
        ),
        (
            "[Script Info]\nTitle: x\n\n[Events]\nFormat: Layer, Start, End, Style, Text\n"
            "Dialogue: 0,0:00:01.00,0:00:02.00,Default,{\\i1}Hello,{\\i0} you\\Nthere\n"
            "Comment: 0,0:00:01.00,0:00:02.00,Default,hidden\n"
            "Dialogue: 0,0:00:01.00,0:00:02.00,Default,{\\p1}m 0 0 l 100 0{\\p0}\n",
            "Hello, you\nthere",
        ),
    ],
)
def test_the_spoken_lines_of_subtitles(source, text):
    assert subtitle_text(source) == text


def test_subtitles_and_pages_under_txt_are_named(tmp_path):
    (tmp_path / "a.txt").write_text(SRT + "Bye.")
    (tmp_path / "b.txt").write_text("<!doctype html><p>Text")
    (tmp_path / "c.txt").write_text("Text with --> an arrow and <b>tags</b>.")
    notes = Notes()
    items = read_all(tmp_path, ["a.txt", "b.txt", "c.txt"], notes)
    assert texts(items) == [
        "Hello there.\nBye.",
        "Text",
        "Text with --> an arrow and <b>tags</b>.",
    ]
    assert [line.partition(":")[0] for line in notes.warnings] == ["a.txt", "b.txt"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_formats_are_recognized_in_wide_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes((SRT + "Bye.").encode(encoding))
    (tmp_path / "b.txt").write_bytes("<html><p>Text</html>".encode(encoding))
    items = read_all(tmp_path, ["a.txt", "b.txt"])
    assert texts(items) == ["Hello there.\nBye.", "Text"]


def test_source_code_stays_as_it_is(tmp_path):
    code = '    indented = "<html>"\n\tif x:\n\t\tpass\n\n\n\n# 00:00:01,000 --> 00:00:02,000\n'
    for suffix in ("py", "c", "js", "sh", "html.j2", "md"):
        (tmp_path / f"a.{suffix}").write_text(code)
        assert texts(read(tmp_path / f"a.{suffix}")) == [code]
