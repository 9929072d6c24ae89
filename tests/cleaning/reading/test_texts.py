import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning.clean import clean_item
from atlas.cleaning.documents import Document
from atlas.cleaning.reading import read as units
from atlas.cleaning.reading import streams as blocks
from atlas.cleaning.reading.pieces import Notes, Rejection
from tests.cleaning.reading.raw_files import cleaning, read_all, texts
from tests.small import text

MARK = "<|endoftext|>"
STORIES = [f"{text(seed)} \u2013 \u00e9" for seed in range(30)]


@pytest.fixture
def small_ranges(monkeypatch):
    monkeypatch.setattr(blocks, "MAX_BLOCK", 4000)
    monkeypatch.setattr(blocks, "LOOK_BACK", 200)
    monkeypatch.setattr(units, "MIN_UNIT", 4000)
    monkeypatch.setattr(units, "MIN_RANGE", 4000)


def clean_all(folder, files, **changes):
    """Read and clean files; return the texts of the documents."""
    clean = cleaning(**changes)
    items = read_all(folder, files, **changes)
    return texts([part for item in items for part in clean_item(item, clean, Notes())])


@pytest.mark.parametrize("mark", [MARK, "\n\n====\n\n", "\f"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_separator_divides_a_text(tmp_path, small_ranges, encoding, mark, newline):
    content = f"\n{mark}\n".join([*STORIES, " "]).replace("\n", newline)
    (tmp_path / "a.txt").write_bytes(content.encode(encoding))
    items = read_all(tmp_path, ["a.txt"], separator=mark)
    assert len({item.id for item in items}) == len(items)
    assert texts(items) == [story.replace("\n", newline) for story in STORIES]


@pytest.mark.parametrize("mark", [f"\n{MARK}\n", MARK, "\n\f\n", "\n \n\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_usual_separators_are_recognized(tmp_path, small_ranges, mark, newline):
    (tmp_path / "a.txt").write_text(mark.join(STORIES).replace("\n", newline), newline="")
    found = clean_all(tmp_path, ["a.txt"], documents="separator")
    assert found == STORIES


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_and_paragraphs(tmp_path, small_ranges, newline):
    paragraphs = [f"first line {n}\n  second line {n}" for n in range(300)]
    (tmp_path / "a.txt").write_text("\n \n\n".join(paragraphs).replace("\n", newline), newline="")
    assert clean_all(tmp_path, ["a.txt"], documents="paragraph") == paragraphs
    lines = [line for paragraph in paragraphs for line in paragraph.split("\n")]
    assert clean_all(tmp_path, ["a.txt"], documents="line") == lines


def test_lines_with_the_mark_divide_a_file_by_default(tmp_path, small_ranges):
    (tmp_path / "a.txt").write_text(f"\n{MARK}\n".join(STORIES))
    assert texts(read_all(tmp_path, ["a.txt"])) == STORIES
    assert len(read_all(tmp_path, ["a.txt"], documents="file")) < len(STORIES)


def test_the_mark_within_a_line_stays_text(tmp_path):
    content = f"one {MARK} two\nx{MARK}\n{MARK} y"
    (tmp_path / "a.txt").write_text(content)
    assert texts(read_all(tmp_path, ["a.txt"])) == [content]


@pytest.mark.parametrize("documents", ["paragraph", "line"])
def test_a_book_is_divided_without_its_header(tmp_path, documents):
    header = "The Project Gutenberg EBook of X\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n"
    footer = "\n*** END OF THE PROJECT GUTENBERG EBOOK X ***\n"
    (tmp_path / "a.txt").write_text(f"{header}\none\n\ntwo\n{footer}")
    assert clean_all(tmp_path, ["a.txt"], documents=documents) == ["one", "two"]


contents = st.lists(st.sampled_from(["a", "b c", "\n", "\r\n", "\f", "#", " ", MARK]), max_size=60)


@given(contents.map("".join), st.sampled_from(["auto", "file", "paragraph", "line", "separator"]))
@settings(deadline=None)
def test_every_character_is_kept_or_counted(tmp_path_factory, content, documents):
    folder = tmp_path_factory.mktemp("raw")
    (folder / "a.txt").write_text(content, newline="")
    notes = Notes()
    items = read_all(folder, ["a.txt"], notes, documents=documents)
    if items == [Rejection("a.txt", "empty")]:
        assert not content.replace(MARK, "").strip()
        return
    size = len(content)
    if documents in ("paragraph", "line"):  # these are divided after clean has unified line ends
        size -= content.count("\r\n")
        clean = cleaning(documents=documents)
        items = [part for item in items for part in clean_item(item, clean, notes)]
    kept = sum(len(item.text) for item in items if isinstance(item, Document))
    if items and not isinstance(items[0], Rejection):
        assert kept + notes.counts["separators"] == size
