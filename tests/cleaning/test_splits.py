import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.cleaning.documents import Document
from atlas.cleaning.splits import (
    MAX_NGRAMS,
    NGRAM,
    ROW,
    TABLE,
    Splitting,
    StagedCorpus,
    cut_document,
    hash_filter,
    mark_seen,
    sample_modulus,
    sample_ngrams,
    split_point,
)
from atlas.cleaning.words import distinct, hash_words
from tests.small import small_params, text


def clean(**changes):
    return small_params(**{f"clean.{key}": value for key, value in changes.items()}).clean


SHARES = clean()
NOTHING = np.empty(0, np.int64)


def staged(folder, sizes, seed=1):
    """Stage the table of documents of some sizes in bytes."""
    folder.mkdir(exist_ok=True)
    rows = np.zeros(len(sizes), ROW)
    rows["length"] = sizes
    rows["point"] = [split_point(str(number).encode(), seed) for number in range(len(sizes))]
    np.save(folder / TABLE, rows)
    return StagedCorpus.from_folders([(folder, len(sizes))])


def split(corpus, shares):
    """Return the index of the split of each document."""
    splitting = Splitting.choose(corpus, NOTHING, shares)
    return splitting.split_of(corpus.chunks[0].table()["point"]).tolist()


@given(st.text(max_size=500), st.floats(0.01, 0.6), st.floats(0, 0.3))
def test_parts_of_a_document_join_to_the_document(content, val, test):
    shares = SHARES.model_copy(update={"val": val, "test": test})
    parts = list(cut_document(Document("d", "s", content), shares))
    assert "".join(part.text for _, part in parts) == content
    assert [split for split, _ in parts] == sorted(
        (split for split, _ in parts), key=["train", "val", "test"].index
    )
    assert len({part.id for _, part in parts}) == len(parts)


def test_cuts_fall_on_line_starts_near_the_shares():
    content = text(1, sentences=1000)
    parts = dict(cut_document(Document("d", "s", content), clean(val=0.1, test=0.2)))
    assert len(parts["train"].text) == pytest.approx(0.7 * len(content), abs=100)
    assert len(parts["test"].text) == pytest.approx(0.2 * len(content), abs=100)
    assert all(parts[split].text.endswith("\n") for split in ("train", "val"))


def test_a_long_line_is_cut_at_a_space():
    parts = dict(cut_document(Document("d", "s", "word " * 10_000), clean()))
    assert all(part.text.startswith("word ") for part in parts.values())


def test_documents_fall_into_splits_by_their_shares(tmp_path):
    shares = clean(val=0.1, test=0.2)
    splits = split(staged(tmp_path, [100] * 10_000), shares)
    assert splits.count(1) == pytest.approx(1000, abs=120)  # four standard deviations
    assert splits.count(2) == pytest.approx(2000, abs=160)


def test_the_split_depends_only_on_text_and_seed():
    def splits(seed):
        return [split_point(str(number).encode(), seed) for number in range(200)]

    assert splits(1) == splits(1) != splits(2)


@pytest.mark.parametrize(
    ("asked", "sizes", "expected"),
    [
        ("auto", [100] * 60, "document"),
        ("auto", [100] * 20, "document"),
        ("auto", [100] * 3, "position"),
        ("auto", [10**6] + [100] * 60, "position"),  # one document is nearly all of the text
        ("document", [100], "document"),
        ("position", [100] * 1000, "position"),
    ],
)
def test_auto_splits_by_document_if_the_shares_fit(tmp_path, asked, sizes, expected):
    corpus = staged(tmp_path, sizes)
    assert Splitting.choose(corpus, NOTHING, clean(split_by=asked)).by == expected


@pytest.mark.parametrize("seed", range(20))
def test_each_split_gets_a_document(tmp_path, seed):
    splits = split(staged(tmp_path, [100] * 30, seed), clean(split_by="document"))
    assert set(splits) == {0, 1, 2}
    without_test = split(staged(tmp_path / "b", [100] * 30, seed), clean(test=0.0))
    assert set(without_test) == {0, 1}


texts = st.lists(st.lists(st.sampled_from("ab"), max_size=40).map(" ".join), max_size=5)


def by_hand(texts):
    found = set()
    for each in texts:
        words = each.split()
        found |= {tuple(words[n : n + NGRAM]) for n in range(len(words) - NGRAM + 1)}
    return found


@given(texts, texts)
def test_seen_ngrams_match_an_exhaustive_comparison(held_out, training):
    looked_for = distinct(sample_ngrams(hash_words(held_out), 1))
    seen = np.zeros(len(looked_for), bool)
    mark_seen(looked_for, hash_filter(looked_for), sample_ngrams(hash_words(training), 1), seen)
    assert len(looked_for) == len(by_hand(held_out))
    assert seen.sum() == len(by_hand(held_out) & by_hand(training))


def test_a_sample_is_a_subset_of_all_ngrams():
    words = hash_words([" ".join(f"w{n}" for n in range(50_000))])
    whole = distinct(sample_ngrams(words, 1))
    part = distinct(sample_ngrams(words, 8))
    assert set(part.tolist()) < set(whole.tolist())
    assert 0.11 < len(part) / len(whole) < 0.14


def test_the_sample_size_is_bounded():
    for size in (0, 1000, 4 * MAX_NGRAMS, 4 * MAX_NGRAMS + 8, 10**9, 10**12):
        assert size / 4 / sample_modulus(size) <= MAX_NGRAMS
    assert sample_modulus(4 * MAX_NGRAMS) == 1
    assert sample_modulus(4 * MAX_NGRAMS + 8) == 2


def test_a_cut_document_keeps_its_corpus_but_no_messages():
    messages = [{"role": "user", "content": "a b c d " * 50}]
    document = Document("d", "s", messages[0]["content"], "stories", messages)
    clean = small_params(**{"clean.val": 0.2, "clean.test": 0.2}).clean
    parts = [part for _, part in cut_document(document, clean)]
    assert [(part.corpus, part.messages) for part in parts] == [("stories", None)] * 3
