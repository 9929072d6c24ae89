import gzip
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.steps import filters
from atlas.cleaning.steps.filters import FILTERS
from atlas.params.schema import FilterName
from tests.cleaning.scripts import VOCABULARY, story
from tests.small import text

DIFFERENT = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(400)]


def words(count: int, start: int = 0) -> str:
    return " ".join(DIFFERENT[start : start + count])


def different_lines(count: int) -> list[str]:
    return [words(5, 5 * number) for number in range(count)]


@pytest.mark.parametrize(
    ("name", "passes", "fails", "detail"),
    [
        ("short", words(50), words(49), "49 words, fewer than 50"),
        ("word_length", "abc abc", "ab abc", "mean word length 2.5, not between 3 and 10"),
        ("word_length", "a" * 10, "a" * 11, "mean word length 11.0, not between 3 and 10"),
        ("symbols", "# " + words(9), "## " + words(9), "2 hash signs in 10 words"),
        ("symbols", words(10) + "…", words(10) + "...…", "2 ellipses in 10 words"),
        ("bullets", "- a\n" * 9 + "a", "• a\n" * 10 + "a", "10 of 11 lines with bullet"),
        ("ellipsis", "a…\n" * 3 + "a\n" * 7, "a...\n" * 4 + "\na\n" * 6, "4 of 10 lines with ..."),
        ("letters", "a é ж 1 本", "a 1 2 3 4", "1 of 5 words have a letter, fewer than 80%"),
        ("english", "The end of it", "The other thing", "1 of the words and, be, have"),
    ],
)
def test_each_filter_at_its_threshold(name, passes, fails, detail):
    assert FILTERS[name](passes) is None
    assert detail in FILTERS[name](fails)


@pytest.mark.parametrize(
    ("passes", "fails", "detail"),
    [
        (
            different_lines(8) + different_lines(2),
            different_lines(7) + different_lines(2),
            "22% of the characters in repeated lines, more than 20%",
        ),
        (
            [words(99, 99), *different_lines(7), *different_lines(3)],
            [words(99, 99), *different_lines(7), *different_lines(4)],
            "33% repeated lines, more than 30%",
        ),
    ],
)
def test_repeated_lines(passes, fails, detail):
    assert filters._repeated_segments(passes, "lines") is None
    assert filters._repeated_segments(fails, "lines") == detail


def test_repetition_looks_at_lines_paragraphs_and_words():
    once = words(30)
    folded, unfolded = once.replace("wak", "wak\n"), once.replace("wap", "wap\n")
    assert "repeated lines" in FILTERS["repetition"](f"{once}\n{once}")
    assert "in repeated 5-grams" in FILTERS["repetition"](f"{folded}\n\n{unfolded}")
    stanza = "\n".join(different_lines(2))
    verses = "\n".join(f"{line} {n}" for n, line in enumerate(different_lines(5)))
    assert filters._repeated_segments([stanza, stanza, verses], "paragraphs") is not None


def repeating(pattern: list[str], times: int, between: int) -> list[str]:
    """Repeat a run of words, with other words between the repetitions."""
    found = []
    for number in range(times):
        found += pattern + DIFFERENT[between * number : between * (number + 1)]
    return found


@pytest.mark.parametrize(
    ("n", "between", "detail"),
    [
        (2, 7, "22% in the most frequent 2-gram, more than 20%"),
        (3, 13, "19% in the most frequent 3-gram, more than 18%"),
        (4, 20, "17% in the most frequent 4-gram, more than 16%"),
    ],
)
def test_the_most_frequent_ngram(n, between, detail):
    pattern = ["xaa", "yaa", "zaa", "qaa"][:n]
    assert filters._repeated_ngrams(repeating(pattern, 15, between)) == detail
    assert filters._repeated_ngrams(repeating(pattern, 10, between + 6)) is None


@pytest.mark.parametrize(("n", "share"), filters.MAX_REPEATED_NGRAMS.items())
def test_repeated_ngrams(n, share):
    """Ten runs of n words occur twice, just above or below the limit."""
    runs = [
        [f"x{run}{word}" for word in DIFFERENT[:n]] for run in range(10)
    ]  # five letters per word
    repeated = [word for run in runs for word in [*run, f"<{run[0][:3]}>"]]
    for length, passes in ((10 * n / share + 10, True), (10 * n / share - 10, False)):
        again = [word for run in runs for word in [f">{run[0][:3]}<", *run]]
        rest = [f"y{number:04}" for number in range(int(length) - len(repeated) - len(again))]
        found = filters._repeated_ngrams(repeated + rest + again)
        assert (found is None) == passes
        assert passes or f"in repeated {n}-grams" in found


@given(st.lists(st.sampled_from("ab"), min_size=5, max_size=40), st.integers(5, 10))
def test_repeated_ngrams_against_the_definition(found, n):
    covered = set()
    for start in range(len(found) - n + 1):
        gram = found[start : start + n]
        if any(gram == found[before : before + n] for before in range(start)):
            covered |= set(range(start, start + n))
    lengths = np.ones(len(found), np.int64)
    grams = dict(filters._ngram_ids(found))
    if n in grams:
        assert filters._repeated_characters(grams[n], lengths, n) == len(covered)


def test_filter_names_match_the_params():
    assert tuple(FILTERS) == get_args(FilterName)


@pytest.mark.parametrize("name", FILTERS)
@given(content=st.text(max_size=300))
def test_a_detail_is_one_line(name, content):
    detail = FILTERS[name](content)
    assert detail is None or (detail and "\n" not in detail)


def test_an_ordinary_text_passes_all_but_repetition():
    ordinary = text(1, sentences=30) + " to be"
    others = set(FILTERS) - {"repetition", "english"}
    assert {name: FILTERS[name](ordinary) for name in others} == dict.fromkeys(others)


def test_headings_and_speakers_can_repeat():
    scenes = [f"ROMEO:\n{words(30, 30 * number)}" for number in range(10)]
    assert FILTERS["repetition"]("\n\n".join(["CHAPTER I", *scenes, "CHAPTER I"])) is None


def test_real_books_pass(corpora):
    for path in sorted((corpora / "novels").iterdir())[::4]:
        novel = gzip.decompress(path.read_bytes()).decode("utf-8-sig").replace("\r\n", "\n")
        failed = {name: detail for name, check in FILTERS.items() if (detail := check(novel))}
        assert not failed, path.name
    for path in sorted((corpora / "gutenberg").iterdir()):
        book = path.read_text(encoding="latin-1")
        for name in ("repetition", "bullets", "ellipsis"):
            assert FILTERS[name](book) is None, path.name


@pytest.mark.parametrize("language", VOCABULARY)
@pytest.mark.parametrize("name", [name for name in FILTERS if name != "english"])
def test_good_text_in_every_script_passes(name, language):
    paragraphs = [story(language, seed, 300) for seed in range(6)]
    assert FILTERS[name]("\n\n".join(paragraphs)) is None


def test_letters_are_words_where_no_spaces_are():
    assert "49 words" in FILTERS["short"]("文" * 49 + "。")
    assert FILTERS["short"]("น้ำ" * 25) is None
    assert "1 of 5 words have a letter" in FILTERS["letters"]("文 1 2 3 4")
    assert "repeated lines" in FILTERS["repetition"](f"{'文字' * 30}\n\n{'文字' * 30}")
