from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.normalising import normalise
from tests.small import small_params


def clean(**changes):
    return small_params(**{f"clean.{key}": value for key, value in changes.items()}).clean


@pytest.mark.parametrize(
    ("text", "expected", "step"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd", "line_ends"),
        ("a\u2028b\x85c\x0cd\x0be", "a\nb\nc\nd\ne", "line_ends"),
        ("e\u0301", "\u00e9", "documents_composed"),
        ("a\x00b\x07c\x7f", "abc", "control_characters"),
        ("\ufefftext", "text", "control_characters"),
        ("a\ud800b", "a\ufffdb", "surrogates"),
    ],
)
def test_each_step(text, expected, step):
    changes = Counter()
    assert normalise(text, clean(), changes) == expected
    assert changes[step] > 0
    assert sum(count > 0 for count in changes.values()) == 1


def test_tabs_and_blanks_stay():
    text = "  a\tb  \n\n  c "
    assert normalise(text, clean(), Counter()) == text


def test_steps_can_be_switched_off():
    kept = clean(unicode="none", control_characters="keep")
    assert normalise("e\u0301\x00", kept, Counter()) == "e\u0301\x00"


ALL_STEPS = clean()


@given(st.text(max_size=200))
def test_normalising_twice_is_normalising_once(text):
    once = normalise(text, ALL_STEPS, Counter())
    assert normalise(once, ALL_STEPS, Counter()) == once
    once.encode()
