import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning import duplicates
from atlas.cleaning.clean import write_chunks
from atlas.cleaning.documents import Document
from atlas.cleaning.duplicates import choose_bands, exact_duplicates, near_duplicates
from atlas.cleaning.splits import StagedCorpus
from tests.cleaning.scripts import VOCABULARY, story, with_changed_letters
from tests.small import WORDS, small_params


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Stage texts in chunks of a few documents."""

    def store(texts, threshold=0.7, size=7):
        folder = tmp_path_factory.mktemp("chunks")
        folders = []
        clean = small_params(**{"clean.jaccard_threshold": threshold}).clean
        documents = [Document(str(number), "s", text) for number, text in enumerate(texts)]
        for start in range(0, len(texts), size):
            chunk = iter(documents[start : start + size])
            (count,) = write_chunks(chunk, folder / str(start), clean)
            folders.append((folder / str(start) / "000", count))
        return StagedCorpus.from_folders(folders)

    return store


def pairs(duplicates):
    return list(zip(duplicates["number"].tolist(), duplicates["original"].tolist(), strict=True))


def near(corpus, threshold, excluded=()):
    return near_duplicates(corpus, threshold, np.array(excluded, np.int64))


def shingles(text):
    words = text.lower().split()
    return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}


def true_jaccard(first, second):
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def changed(words, share, generator):
    """Replace each word with a probability."""
    return [
        f"{word}{generator.randrange(9)}" if generator.random() < share else word for word in words
    ]


@pytest.fixture(scope="module")
def family():
    """200 texts, each followed by a more or less changed copy."""
    generator = random.Random(5)
    texts = []
    for number in range(200):
        words = generator.choices(WORDS, k=generator.randint(60, 400))
        texts += [" ".join(words), " ".join(changed(words, number / 2000, generator))]
    return texts


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.integers(1, 5))
@settings(deadline=None)
def test_exact_duplicates_are_all_but_the_first(stage, texts, partitions):
    corpus = stage(texts)
    duplicates.PARTITION, before = max(1, len(texts) // partitions), duplicates.PARTITION
    try:
        found = exact_duplicates(corpus)
    finally:
        duplicates.PARTITION = before
    expected = [(n, texts.index(text)) for n, text in enumerate(texts) if text in texts[:n]]
    assert pairs(found) == expected
    assert found["exact"].all()


def test_an_empty_corpus_has_no_duplicates(stage):
    assert len(exact_duplicates(stage([]))) == len(near(stage([]), 0.7)) == 0


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.9])
def test_near_duplicates_match_an_exhaustive_comparison(stage, family, threshold):
    both = list(zip(family[::2], family[1::2], strict=True))
    true = {2 * n + 1 for n, pair in enumerate(both) if true_jaccard(*pair) >= threshold}
    found = near(stage(family, threshold), threshold)
    assert set(found["number"].tolist()) <= true
    assert len(found) >= 0.95 * len(true)
    for number, of in pairs(found):
        assert of == number - 1
    expected = [true_jaccard(family[of], family[number]) for number, of in pairs(found)]
    assert found["jaccard"].tolist() == pytest.approx(expected)


@pytest.mark.slow
def test_partitions_change_nothing(stage, family, monkeypatch):
    corpus = stage(family)
    whole = near(corpus, 0.7)
    monkeypatch.setattr(duplicates, "PARTITION", 60)
    monkeypatch.setattr(duplicates, "MIN_PAIRS", 5)
    assert (near(corpus, 0.7) == whole).all()


@pytest.mark.slow
def test_workers_change_nothing(stage, family, monkeypatch):
    corpus = stage(family)
    monkeypatch.setenv("ATLAS_PARALLEL", "1")
    alone = near(corpus, 0.7)
    monkeypatch.setenv("ATLAS_PARALLEL", "2")
    assert (near(corpus, 0.7) == alone).all()


def test_a_chain_of_similar_documents_is_one_group(stage):
    words = [f"w{n}" for n in range(200)]
    chain = [" ".join(words[10 * n :] + [f"n{m}" for m in range(10 * n)]) for n in range(4)]
    assert true_jaccard(chain[0], chain[3]) < 0.75 < true_jaccard(chain[0], chain[1])
    found = near(stage(chain[::-1], 0.75), 0.75)
    assert found["number"].tolist() == [1, 2, 3]


def test_excluded_documents_are_not_compared(stage):
    text = " ".join(WORDS)
    corpus = stage([text, text, text.upper()])
    exact = exact_duplicates(corpus)
    assert pairs(exact) == [(1, 0)]
    assert pairs(near(corpus, 0.7, exact["number"])) == [(2, 0)]


def test_short_documents_only_have_exact_duplicates(stage):
    corpus = stage(["3 + 5 = 8", "3 - 5 = 8", "3 * 5 = 8", "!", "?"])
    assert len(near(corpus, 0.7)) == 0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_bands_miss_few_pairs_at_the_threshold(threshold):
    bands, rows = choose_bands(threshold)
    assert bands * rows <= 128
    assert 1 - (1 - threshold**rows) ** bands >= 0.98


def test_precision_and_recall_on_a_labeled_set(stage, corpora):
    lines = (corpora / "dirty/duplicates.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    expected = json.loads((corpora / "dirty/duplicates_expected.json").read_text())
    number = {record["id"]: n for n, record in enumerate(records)}
    true = {
        tuple(sorted((number[pair["id"]], number[pair["of"]])))
        for pair in expected
        if pair["jaccard_5word"] >= 0.7
    }
    corpus = stage([record["text"] for record in records])
    exact = exact_duplicates(corpus)
    copies = pairs(exact) + pairs(near(corpus, 0.7, exact["number"]))
    found = {(of, number) for number, of in copies}
    print(f"precision {len(found & true) / len(found)}, recall {len(found & true) / len(true)}")
    assert len(found & true) >= 0.95 * len(found)
    assert len(found & true) >= 0.95 * len(true)


@pytest.mark.parametrize("language", VOCABULARY)
def test_copies_in_other_scripts_are_found(stage, language):
    texts = [story(language, seed) for seed in range(200)]
    copies = [with_changed_letters(text, seed) for seed, text in enumerate(texts[:100])]
    found = pairs(near(stage(texts + copies, size=300), 0.7))
    assert all(number - 200 == original for number, original in found)
    assert len(found) >= 95


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=60))
def test_groups_are_connected_components(edges):
    pairs = np.unique(np.array([sorted(edge) for edge in edges]), axis=0)
    group_of = {}
    for first, second in pairs.tolist():  # merge sets one pair at a time
        merged = group_of.get(first, {first}) | group_of.get(second, {second})
        group_of |= dict.fromkeys(merged, merged)
    numbers, group, pair_group = duplicates._groups(pairs)
    firsts = sorted({min(merged) for merged in group_of.values()})
    expected = {number: firsts.index(min(merged)) for number, merged in group_of.items()}
    assert dict(zip(numbers.tolist(), group.tolist(), strict=True)) == expected
    assert pair_group.tolist() == [expected[first] for first, _ in pairs.tolist()]


def test_a_long_chain_is_one_group():
    order = np.random.default_rng(1).permutation(200_000)
    _, group, _ = duplicates._groups(np.stack((order[:-1], order[1:]), axis=1))
    assert not group.any()
