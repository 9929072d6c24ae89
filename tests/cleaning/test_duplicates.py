import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.cleaning import duplicates
from atlas.cleaning.documents import Document
from atlas.cleaning.duplicates import exact_copies, near_copies
from atlas.cleaning.shards import Parts, PartWriter
from atlas.cleaning.sketches import Bands
from tests.small import WORDS, small_params

CLEAN = small_params().clean


@pytest.fixture(scope="module")
def parts_of(tmp_path_factory):
    """Stores texts in parts of a few documents."""

    def store(texts, similarity=0.7, size=7):
        folder = tmp_path_factory.mktemp("parts")
        folders = []
        for start in range(0, len(texts), size):
            writer = PartWriter(folder / str(start), Bands.of(similarity))
            for number, text in enumerate(texts[start : start + size], start):
                writer.write(Document(str(number), "s", text), CLEAN)
            writer.close()
            folders.append((folder / str(start), len(texts[start : start + size])))
        return Parts.of(folders)

    return store


def pairs(copies):
    return list(zip(copies["number"].tolist(), copies["of"].tolist(), strict=True))


def near(parts, similarity, left_out=()):
    return near_copies(parts, similarity, np.array(left_out, np.int64))


def shingles(text):
    words = text.lower().split()
    return {tuple(words[n : n + 5]) for n in range(len(words) - 4)}


def true_jaccard(first, second):
    a, b = shingles(first), shingles(second)
    return len(a & b) / len(a | b)


def changed(words, share, generator):
    """Each word replaced with a probability."""
    return [
        f"{word}{generator.randrange(9)}" if generator.random() < share else word for word in words
    ]


@pytest.fixture(scope="module")
def family():
    """200 texts, each with a copy that is more or less changed."""
    generator = random.Random(5)
    texts = []
    for number in range(200):
        words = generator.choices(WORDS, k=generator.randint(60, 400))
        texts += [" ".join(words), " ".join(changed(words, number / 2000, generator))]
    return texts


@given(st.lists(st.sampled_from("abcdef"), max_size=30), st.integers(1, 5))
@settings(deadline=None)
def test_exact_copies_are_all_but_the_first(parts_of, texts, partitions):
    parts = parts_of(texts)
    duplicates.PARTITION, before = max(1, len(texts) // partitions), duplicates.PARTITION
    try:
        found = exact_copies(parts)
    finally:
        duplicates.PARTITION = before
    expected = [(n, texts.index(text)) for n, text in enumerate(texts) if text in texts[:n]]
    assert pairs(found) == expected
    assert found["exact"].all()


def test_an_empty_corpus_has_no_copies(parts_of):
    assert len(exact_copies(parts_of([]))) == len(near(parts_of([]), 0.7)) == 0


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.9])
def test_pairs_are_found_as_by_comparing_all(parts_of, family, similarity):
    both = list(zip(family[::2], family[1::2], strict=True))
    true = {2 * n + 1 for n, pair in enumerate(both) if true_jaccard(*pair) >= similarity}
    found = near(parts_of(family, similarity), similarity)
    assert set(found["number"].tolist()) <= true
    assert len(found) >= 0.95 * len(true)
    for number, of in pairs(found):
        assert of == number - 1
    expected = [true_jaccard(family[of], family[number]) for number, of in pairs(found)]
    assert found["similarity"].tolist() == pytest.approx(expected)


def test_partitions_change_nothing(parts_of, family, monkeypatch):
    parts = parts_of(family)
    whole = near(parts, 0.7)
    monkeypatch.setattr(duplicates, "PARTITION", 60)
    monkeypatch.setattr(duplicates, "FEWEST_PAIRS", 5)
    assert (near(parts, 0.7) == whole).all()


def test_workers_change_nothing(parts_of, family, monkeypatch):
    parts = parts_of(family)
    monkeypatch.setenv("ATLAS_PARALLEL", "1")
    alone = near(parts, 0.7)
    monkeypatch.setenv("ATLAS_PARALLEL", "2")
    assert (near(parts, 0.7) == alone).all()


def test_a_chain_of_likenesses_is_one_group(parts_of):
    words = [f"w{n}" for n in range(200)]
    chain = [" ".join(words[10 * n :] + [f"n{m}" for m in range(10 * n)]) for n in range(4)]
    assert true_jaccard(chain[0], chain[3]) < 0.75 < true_jaccard(chain[0], chain[1])
    found = near(parts_of(chain[::-1], 0.75), 0.75)
    assert found["number"].tolist() == [1, 2, 3]


def test_what_is_left_out_already_is_not_compared(parts_of):
    text = " ".join(WORDS)
    parts = parts_of([text, text, text.upper()])
    exact = exact_copies(parts)
    assert pairs(exact) == [(1, 0)]
    assert pairs(near(parts, 0.7, exact["number"])) == [(2, 0)]


def test_few_words_have_exact_copies_alone(parts_of):
    parts = parts_of(["3 + 5 = 8", "3 - 5 = 8", "3 * 5 = 8", "!", "?"])
    assert len(near(parts, 0.7)) == 0


@pytest.mark.parametrize("similarity", [0.3, 0.5, 0.7, 0.8, 0.95, 1.0])
def test_bands_miss_few_pairs_at_the_threshold(similarity):
    bands = Bands.of(similarity)
    assert bands.count * bands.rows <= 128
    assert 1 - (1 - similarity**bands.rows) ** bands.count >= 0.98


def test_the_pairs_of_the_given_set(parts_of, corpora):
    lines = (corpora / "dirty/duplicates.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    expected = json.loads((corpora / "dirty/duplicates_expected.json").read_text())
    number = {record["id"]: n for n, record in enumerate(records)}
    true = {
        tuple(sorted((number[pair["id"]], number[pair["of"]])))
        for pair in expected
        if pair["jaccard_5word"] >= 0.7
    }
    parts = parts_of([record["text"] for record in records])
    exact = exact_copies(parts)
    copies = pairs(exact) + pairs(near(parts, 0.7, exact["number"]))
    found = {(of, number) for number, of in copies}
    print(f"precision {len(found & true) / len(found)}, recall {len(found & true) / len(true)}")
    assert len(found & true) >= 0.95 * len(found)
    assert len(found & true) >= 0.95 * len(true)
