from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.inference.text_stream import IncrementalDecoder, TextStream


def decode(ids):
    """Each id is a byte; broken bytes become U+FFFD, as in sentencepiece."""
    return bytes(ids).decode("utf-8", errors="replace")


def stream(ids, prompt=()):
    characters = IncrementalDecoder(decode, prompt)
    return [*(characters.feed(each) for each in ids), characters.flush()]


def test_a_character_is_shown_when_complete():
    assert stream("aé€😀".encode()) == ["a", "", "é", "", "", "€", "", "", "", "😀", ""]


def test_broken_bytes_come_when_nothing_can_mend_them():
    assert stream([0xFF, 97, 0xE2, 0x82]) == ["", "\ufffda", "", "", "\ufffd"]
    assert stream([0xFF, 0xE2, 0x82, 0xAC]) == ["", "", "", "\ufffd€", ""]
    assert "".join(stream([0x80] * 9)) == "\ufffd" * 9


PARTS = st.one_of(
    st.characters(codec="utf-8").map(lambda each: list(each.encode())),
    st.integers(0, 255).map(lambda each: [each]),
)
IDS = st.lists(PARTS, max_size=20).map(lambda parts: [each for part in parts for each in part])


@given(IDS)
def test_the_stream_adds_up_to_the_decoded_text(ids):
    assert "".join(stream(ids)) == decode(ids)


@given(st.text(max_size=20), st.text(max_size=5))
def test_no_character_is_ever_broken(text, prompt):
    parts = stream(text.encode(), list(prompt.encode()))
    assert "".join(parts) == text
    assert all(part == "" or part in text for part in parts)


@given(st.text(max_size=30), st.data())
def test_real_tokenizers_stream_what_they_decode(tokenizer, text, data):
    ids = tokenizer.encode(text)
    begin = data.draw(st.integers(0, len(ids)))
    characters = IncrementalDecoder(tokenizer.decode, ids[:begin])
    came = "".join([*map(characters.feed, ids[begin:]), characters.flush()])
    if "\ufffd" not in tokenizer.decode(ids[:begin]):
        assert tokenizer.decode(ids[:begin]) + came == tokenizer.decode(ids)


def text_stream(stops):
    """A stream whose ids are parts of the text."""
    return TextStream("".join, (), stops)


def feed_all(stops, parts):
    found = text_stream(stops)
    return [found.feed(part) for part in parts], found


def test_a_stop_string_ends_a_text_wherever_it_is_cut():
    assert feed_all(["END"], ["on", "e E", "N", "D two"])[0] == ["on", "e ", "", ""]
    assert feed_all(["END"], ["one E", "NTER"])[0] == ["one ", "ENTER"]
    assert feed_all([], ["one"])[0] == ["one"]
    parts, found = feed_all(["\n\n"], ["a\n", "b\n", "\nc", "d"])
    assert (parts, found.found_stop) == (["a", "\nb", "", ""], "\n\n")


def test_the_first_stop_string_counts():
    assert feed_all(["two", "one"], ["x one two"])[0] == ["x "]
    assert feed_all(["aab", "aa"], ["x aab"])[0] == ["x "]


def test_held_back_text_is_shown_at_the_end():
    found = text_stream(["END"])
    assert (found.feed("the EN"), found.flush(), found.found_stop) == ("the ", "EN", None)


@given(
    st.text("ab", max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(0, 12), max_size=4),
)
def test_stop_strings_cut_where_the_whole_text_would_be(text, stops, cuts):
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[a:b] for a, b in pairwise(borders)]
    came, found = feed_all(stops, parts)
    ends = [text.find(stop) for stop in stops if stop in text]
    shown = "".join(came) + ("" if ends else found.flush())
    if not ends:
        assert (shown, found.found_stop) == (text, None)
    else:
        first_complete = min(text.find(stop) + len(stop) for stop in stops if stop in text)
        assert found.found_stop is not None
        assert text.startswith(shown)
        assert len(shown) <= first_complete


def test_a_text_stream_does_both():
    made = TextStream(decode, (), ["é"])
    assert [made.feed(each) for each in "aé!".encode()] == ["a", "", "", ""]
    assert made.found_stop == "é"
    assert made.flush() == ""


@pytest.mark.parametrize("stops", [[""], ["", ""]])
def test_an_empty_stop_string_stops_nothing(stops):
    assert feed_all(stops, ["abc"])[0] == ["abc"]
