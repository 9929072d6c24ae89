import csv
import re
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.steps.unwrapping import unwrap

SENTENCE = "the boat went slowly over the grey water and nobody said a word about the long way home"
PARAGRAPH = f"Orsin saw that {', and '.join([SENTENCE] * 3)}."
OTHER = f"Then {SENTENCE}; it was late. {SENTENCE.capitalize()} once more."

LEFT_ALONE = {
    "verse": "O boat, my boat, the night is near,\nThe water grey, the harbour clear,\n"
    "And nobody that sings",
    "long verse": "Once upon a grey and weary water, while I counted oar and oar,\n"
    "Over many a slow and silent wave that broke upon the shore,\n"
    "While I nodded, nearly sleeping, suddenly there came a roar,\n"
    "As of some one gently rowing, rowing near my cabin door.",
    "play": "ORSIN.\nWhere is the boat?\n\nVELA.\nIt is gone.",
    "list": "- the boat, which went slowly over the grey water and did not come\n"
    "- the oar that nobody wanted to take although it was a very good oar",
    "numbers": "1. the boat, which went slowly over the grey water and did not come\n"
    "2. the oar that nobody wanted to take although it was a very good oar",
    "table": "boat      the one which went slowly over the grey water in the night\n"
    "oar       the thing that nobody wanted to take although it was good",
    "columns": "| boat | the one which went slowly over the grey water in the nig |\n"
    "| oar  | the thing that nobody wanted to take although it was goo |",
    "indented": textwrap.indent(textwrap.fill(PARAGRAPH, 64), "    "),
    "quoted": textwrap.indent(textwrap.fill(PARAGRAPH, 64), "> "),
    "code": "def row(boat):\n    for oar in boat.oars:\n        oar.pull()\n    return boat",
    "heading": "CHAPTER I. IN WHICH THE BOAT GOES SLOWLY OVER THE WATER AND\nNOBODY SAYS A WORD",
    "short lines": "A. Nobody\nNowhere\n1901",
}


def wrapped(paragraph, width=70, **options):
    return textwrap.fill(paragraph, width, break_on_hyphens=False, **options)


@pytest.mark.parametrize("width", [40, 65, 72, 80, 100])
def test_prose_gets_one_line_per_paragraph(width):
    text = f"{wrapped(PARAGRAPH, width)}\n\n\n{wrapped(OTHER, width)}\n"
    assert unwrap(text) == f"{PARAGRAPH}\n\n\n{OTHER}\n"


@pytest.mark.parametrize("kind", sorted(LEFT_ALONE))
def test_other_blocks_between_prose_stay(kind):
    block = LEFT_ALONE[kind]
    text = f"{wrapped(PARAGRAPH)}\n\n{block}\n\n{wrapped(OTHER)}\n"
    assert unwrap(text) == f"{PARAGRAPH}\n\n{block}\n\n{OTHER}\n"


@pytest.mark.parametrize("kind", sorted(LEFT_ALONE))
def test_text_without_prose_stays(kind):
    text = "\n\n".join([LEFT_ALONE[kind]] * 20) + "\n"
    assert unwrap(text) == text


def test_paragraphs_separated_by_indentation():
    text = "\n".join(wrapped(part, initial_indent="  ") for part in (PARAGRAPH, OTHER))
    assert unwrap(text) == f"  {PARAGRAPH}\n  {OTHER}"


def test_one_short_paragraph_after_another():
    """A paragraph of one and a half lines is joined if others show the width."""
    short = f"It rained, and {SENTENCE}."
    text = f"{wrapped(PARAGRAPH)}\n\n{wrapped(short)}\n\n{wrapped(OTHER)}"
    assert unwrap(text) == f"{PARAGRAPH}\n\n{short}\n\n{OTHER}"


def test_dashes_and_hyphens_at_line_ends():
    lines = [
        "the grey boat went slowly over the water, which is well-",
        "known in the country of those who never row a boat; so--",
        "yes--it was late and nobody said a word about it again -",
        "not one.",
    ]
    text = f"{wrapped(PARAGRAPH, 60)}\n\n" + "\n".join(lines)
    expected = "".join([lines[0], lines[1], lines[2], " ", lines[3]])
    assert unwrap(text) == f"{PARAGRAPH}\n\n{expected}"


def test_unwrapped_text_stays():
    text = f"{PARAGRAPH}\n{OTHER}\nShort.\n\n{PARAGRAPH}\nAnother that is\nshort.\n"
    assert unwrap(text) == text


LINE = st.one_of(
    st.sampled_from(
        ["", "  ", "word " * 13, "Word " * 12 + "w-", "short", "    indented", "- item"]
    ),
    st.text(alphabet="aB -.\t\u00a0\u2014|é", max_size=130),
    st.integers(30, 110).map(lambda width: wrapped(PARAGRAPH, width)),
)


@given(st.lists(LINE, max_size=20).map("\n".join) | st.text(max_size=300))
def test_unwrap_is_idempotent_and_lossless(text):
    once = unwrap(text)
    assert unwrap(once) == once
    assert re.sub(r"\s", "", once) == re.sub(r"\s", "", text)
    assert once.count("\n\n") == text.count("\n\n")


@pytest.mark.slow
@given(
    st.lists(
        st.lists(st.from_regex(r"[a-z]{1,9}", fullmatch=True), min_size=25, max_size=60).map(
            " ".join
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(50, 80),
)
def test_wrapped_prose_round_trip(paragraphs, width):
    text = "\n\n".join(wrapped(paragraph, width) for paragraph in paragraphs)
    if max(map(len, paragraphs)) > 100:
        assert unwrap(text) == "\n\n".join(paragraphs)


# Measured on these books: prose 0.94 to 1.00, a play 0.99, verse and plays in verse 0.
@pytest.mark.parametrize(
    ("book", "joined"),
    [
        ("pandp12.txt", 0.97),
        ("pg-tom_sawyer.txt", 0.97),
        ("sherlock.txt", 0.97),
        ("pg-being_ernest.txt", 0.95),
        ("14881-8.txt", 0.9),
    ],
)
def test_most_line_breaks_of_real_prose_are_removed(corpora, book, joined):
    with (corpora / "gutenberg_oracle.csv").open(encoding="utf-8") as file:
        row = next(row for row in csv.DictReader(file) if row["file"] == book)
    data = (corpora / "gutenberg" / book).read_bytes()
    lines = data.decode(row["encoding"]).replace("\r\n", "\n").split("\n")
    body = "\n".join(lines[int(row["start_line"]) - 1 : int(row["end_line"])])
    assert count_breaks(unwrap(body)) < (1 - joined) * count_breaks(body)


def count_breaks(text):
    """Count line ends within paragraphs."""
    return len(re.findall(r"\S[^\n]*(?=\n[^\n]*\S)", text))


@pytest.mark.parametrize("file", ["tinyshakespeare.txt", "tinystories_a.txt", "gutenberg/1065.txt"])
def test_real_verse_and_unwrapped_text_stay(corpora, file):
    text = (corpora / file).read_text(encoding="utf-8")
    if "gutenberg" in file:
        text = "\n".join(text.split("\n")[33:169])
    assert unwrap(text) == text
