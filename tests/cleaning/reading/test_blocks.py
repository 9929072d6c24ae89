import gzip
import io
import re
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning.reading import streams as blocks
from atlas.cleaning.reading.streams import count_lines, read_blocks, read_lines
from atlas.cleaning.steps.gutenberg import strip_gutenberg
from tests.cleaning.steps import gutenberg_books as books


@pytest.fixture(autouse=True)
def small_limits(monkeypatch):
    monkeypatch.setattr(blocks, "MAX_LINE", 8)
    monkeypatch.setattr(blocks, "MAX_BLOCK", 40)
    monkeypatch.setattr(blocks, "LOOK_BACK", 16)
    monkeypatch.setattr(blocks, "CHUNK", 5)


def ranges(size, step):
    return [(start, min(start + step, size)) for start in range(0, size, step)]


lines = st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=20)


@given(lines, st.integers(1, 60), st.booleans())
def test_ranges_give_every_line_once(contents, step, ends):
    data = b"\n".join(contents) + (b"\n" if ends and contents else b"")
    expected = [
        line + b"\n" if place < data.count(b"\n") else line
        for place, line in enumerate(data.split(b"\n"))
    ]
    expected = [line if len(line) <= 8 else None for line in expected if line]
    found = [
        line
        for start, stop in ranges(len(data), step)
        for line in read_lines(io.BytesIO(data), start, stop)
    ]
    assert found == expected
    assert list(read_lines(io.BytesIO(data), 0, None)) == expected


def test_line_counts_add_up_over_ranges():
    data = b"a\nbb\n\nccccccccccccc\nd"
    assert count_lines(io.BytesIO(data), 0, len(data)) == 4
    assert sum(count_lines(io.BytesIO(data), *r) for r in ranges(len(data), 3)) == 4


texts = st.text(alphabet="ab\u00e9\u20ac\U0001f600 \n", max_size=300)


@given(texts, st.integers(20, 200))
def test_ranges_give_the_text_once_and_split_no_character(text, step):
    data = text.encode()
    found = [
        (place, block)
        for start, stop in ranges(len(data), step)
        for place, block in read_blocks(io.BytesIO(data), start, stop)
    ]
    assert "".join(block.decode() for _, block in found) == text
    assert [place for place, _ in found] == [
        sum(len(block) for _, block in found[:n]) for n in range(len(found))
    ]
    assert all(0 < len(block) <= 40 for _, block in found)


@given(texts)
def test_packed_streams_are_read_in_whole_blocks(text):
    packed = gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(text.encode())))
    blocks = [block for _, block in read_blocks(packed, 0, None)]
    assert b"".join(blocks).decode() == text
    assert all(len(block) > 20 for block in blocks[:-1])


@given(st.text(alphabet="ab\n#", max_size=300), st.integers(20, 200))
def test_blocks_end_after_the_last_mark(text, step):
    data = text.encode()
    marks = [re.compile(b"##"), re.compile(b"\n\n")]
    found = [
        block
        for start, stop in ranges(len(data), step)
        for _, block in read_blocks(io.BytesIO(data), start, stop, marks)
    ]
    assert b"".join(found) == data
    for block in found[:-1]:
        if b"##" in block[:-1]:
            assert block.endswith(b"##")


def test_blocks_end_after_lines_or_spaces():
    data = b"one two\n" + b"x" * 30 + b" " + b"y" * 30
    found = [block for _, block in read_blocks(io.BytesIO(data), 0, None)]
    assert found == [b"one two\n" + b"x" * 30 + b" ", b"y" * 30]


@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(0, 9000), st.booleans()), min_size=2), st.data())
def test_no_block_ends_within_a_header_or_footer(sizes, data):
    sentence = "Orsin counted the waves.\n"
    bodies = [sentence * (size // len(sentence) + 1) for size, _ in sizes]
    text = "".join(
        f"{books.HEADERS['modern']}\n\n{body}\n\n{books.ENDS['modern'] if end else ''}\n\n"
        for body, (_, end) in zip(bodies, sizes, strict=True)
    )
    step = data.draw(st.integers(10_000, 30_000))
    raw = text.encode()
    with mock.patch.multiple(
        blocks, MAX_BLOCK=10_000, LOOK_BACK=500, NEAR_END=3_000, NAME_MARGIN=100
    ):
        found = [
            (place, block)
            for start, stop in ranges(len(raw), step)
            for place, block in read_blocks(io.BytesIO(raw), start, stop)
        ]
    assert b"".join(block for _, block in found) == raw
    assert all(len(block) <= 10_000 for _, block in found)
    kept = "".join(
        book.text for _, block in found for book in strip_gutenberg(block.decode(), notes=False)
    )
    # Blank lines above a header that begins the next block stay.
    assert list(filter(None, kept.split("\n"))) == "".join(bodies).splitlines()
