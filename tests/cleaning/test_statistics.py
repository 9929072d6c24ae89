import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning import statistics
from atlas.cleaning.statistics import Statistics, plot_tables
from atlas.cleaning.words import hash_words


def counted(*batches):
    total = Statistics()
    for batch in batches:
        total.add(hash_words(batch))
    return total


batches = st.lists(st.lists(st.text(st.sampled_from("ab éЖ中\n.")), max_size=4), max_size=4)


@given(batches)
def test_counts_match_a_simple_implementation(batches):
    texts = [text for batch in batches for text in batch]
    found = counted(*batches)
    words = Counter(word for text in texts for word in re.findall(r"中|[^\W中]+", text.lower()))
    assert found.characters == Counter("".join(texts))
    assert dict(found.frequent_words()) == words
    assert found.words == words.total()
    assert found.documents == len(texts)


@given(batches)
def test_merged_counts_equal_counts_of_everything(batches):
    merged = Statistics()
    for batch in batches:
        merged.merge(counted(batch))
    assert merged.report() == counted(*batches).report()


def test_letters_are_counted_by_script():
    found = counted(["abc é", "Жж", "中", "1 2 ٣ !", "αβγδ"]).scripts()
    assert found == {"Latin": 4, "Cyrillic": 2, "Cjk": 1, "Greek": 4}


def test_lengths_are_counted_in_doubling_ranges():
    found = counted(["", "one", "one two", "a b c", " ".join("x" * 9)]).document_lengths()
    assert found == [("0", 1), ("1", 1), ("2-3", 2), ("4-7", 0), ("8-15", 1)]


def test_rare_words_are_dropped_beyond_the_limit(monkeypatch):
    monkeypatch.setattr(statistics, "MAX_WORDS", 100)
    found = counted(["often " * 50 + " ".join(f"w{n}" for n in range(200))])
    assert found.frequent_words()[0] == ("often", 50)
    assert all(count == 1 for _, count in found.frequent_words()[1:])
    assert found.report()["distinct_words_is_lower_bound"]
    assert len(found.word_hashes) == 50


def test_tables_name_invisible_characters():
    found = plot_tables([counted(["a b\n"]), counted(["b\tb"])])
    assert found["words"] == [{"word": "b", "count": 3}, {"word": "a", "count": 1}]
    assert {row["character"] for row in found["characters"]} == {
        "a", "b", "blank", "line end", "tab",
    }  # fmt: skip
    assert found["scripts"] == [{"script": "Latin", "letters": 4}]


@pytest.mark.parametrize("texts", [[], [""]])
def test_empty_statistics(texts):
    assert counted(texts).report()["most_frequent_words"] == {}


def test_a_corpus_without_letters_has_tables():
    found = plot_tables([counted(["1 + 2", "= 3"])])
    assert found["scripts"] == [{"script": "none", "letters": 0}]
    assert plot_tables([])["words"] == [{"word": "none", "count": 0}]
