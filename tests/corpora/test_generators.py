import hashlib
import itertools
import json
import random
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.corpora import arithmetic, stories
from atlas.errors import AtlasError

GOLDEN = ["e49d208620ff04ea", "406e2c435a50cc8e", "db64f4dfbe215471"]  # Python 3.11, 3.12, 3.13


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def write(tmp_path):
    def run(writer, *arguments):
        (name,) = writer(tmp_path, *arguments)
        return tmp_path / name

    return run


def test_golden_bytes(write):
    paths = [
        write(arithmetic.write_arithmetic, 100, 1),
        write(arithmetic.write_modular, "divide", 7),
        write(stories.write_stories, 20, 1),
    ]
    assert [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in paths] == GOLDEN


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("First 3 7 1 =", "3"),
        ("Second 3 7 1 =", "7"),
        ("Last 3 7 1 =", "1"),
        ("Max 3 7 1 =", "7"),
        ("Min 3 7 1 =", "1"),
        ("Evens 0 2 3 5 8 =", "3"),
        ("Add 9 1 7 =", "6"),
        ("Subtract 3 7 =", "6"),  # -4 modulo ten
        ("Subtract 9 1 2 =", "7"),
        ("Multiply 7 5 5 8 =", "6"),
    ],
)
def test_answers_by_hand(question, answer):
    assert arithmetic.solve(question) == answer


@pytest.mark.parametrize(
    "question",
    ["", "First =", "First 3 =", "Third 1 2 =", "Max 1 2", "Max 1 12 =", "Max 1 2 3 4 5 6 ="],
)
def test_invalid_questions_are_rejected(question):
    with pytest.raises(ValueError, match="a question is one of"):
        arithmetic.solve(question)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 9))
def test_examples_are_distinct_correct_and_balanced(tmp_path_factory, examples, seed):
    folder = tmp_path_factory.mktemp("arithmetic")
    arithmetic.write_arithmetic(folder, examples, seed)
    found = records(folder / "arithmetic.jsonl")
    texts = [record["text"] for record in found]
    assert len(set(texts)) == len(texts) == examples
    for record in found:
        question, _, answer = record["text"].rpartition("= ")
        assert arithmetic.solve(question + "=") == answer
        assert record["text"].split()[0] == record["source"]
        assert set(record["text"].split()) <= set(arithmetic.VOCABULARY)
    counts = Counter(record["source"] for record in found)
    shares = [counts[operation] for operation in arithmetic.OPERATIONS]
    assert max(shares) - min(shares) <= 1


def test_the_language_has_twenty_tokens():
    assert len(set(arithmetic.VOCABULARY)) == 20


@pytest.mark.parametrize("examples", [0, 999_901])
def test_too_many_examples_are_an_error(write, examples):
    with pytest.raises(AtlasError, match=f"examples is {examples}: it must be 1 to 999900"):
        write(arithmetic.write_arithmetic, examples, 1)


def test_all_questions_can_be_written(write, monkeypatch):
    monkeypatch.setattr(arithmetic, "LENGTHS", range(2, 4))
    path = write(arithmetic.write_arithmetic, 9 * 1100, 1)
    assert len(set(path.read_text().splitlines())) == 9 * 1100


@pytest.mark.parametrize(
    ("operation", "equation"),
    [
        ("add", "5 + 4 = 2"),
        ("subtract", "2 - 5 = 4"),
        ("multiply", "3 * 5 = 1"),
        ("divide", "1 / 3 = 5"),
        ("square_sum", "2 @ 3 = 6"),
        ("quadratic", "1 # 2 = 0"),
        ("cubic", "1 & 2 = 0"),
    ],
)
def test_equations_by_hand(write, operation, equation):
    texts = [record["text"] for record in records(write(arithmetic.write_modular, operation, 7))]
    assert equation in texts
    assert len(texts) == len(set(texts)) == 7 * (6 if operation == "divide" else 7)


@given(st.sampled_from([2, 3, 5, 31]))
def test_division_undoes_multiplication(tmp_path_factory, modulus):
    folder = tmp_path_factory.mktemp("modular")
    arithmetic.write_modular(folder, "divide", modulus)
    for record in records(folder / "modular.jsonl"):
        a, _, b, _, c = record["text"].split()
        assert int(b) * int(c) % modulus == int(a)


@pytest.mark.parametrize("modulus", [4, 91, 100])
def test_division_needs_a_prime(write, modulus):
    with pytest.raises(AtlasError, match=f"corpus.modular.modulus is {modulus}: .* needs a prime"):
        write(arithmetic.write_modular, "divide", modulus)


@pytest.fixture(scope="module")
def told():
    return [stories.tell(random.Random(f"told {number}")) for number in range(2000)]


def test_every_plot_occurs(told):
    plots = stories.load_grammar()["plots"]
    assert {plot for plot, _ in told} == set(plots)
    assert len(plots) >= 10


def test_stories_are_well_formed(told):
    faults = re.compile(r"[{}_]|  | [.,!?]|\.\.|\ba [aeiou]|\ban [^aeiou]", re.IGNORECASE)
    for _, text in told:
        assert not faults.search(text), text
        assert text.count('"') % 2 == 0
        for paragraph in text.split("\n\n"):
            assert paragraph.lstrip('"')[0].isupper()
            assert not re.search(r"[.!?] [a-z]", paragraph), paragraph
        assert 60 <= len(text.split()) <= 250


def names_in(text):
    words = stories.load_grammar()["words"]
    names = {*words["she"], *words["he"]}
    return [word for word in re.findall(r"\w+", text) if word in names]


def test_the_hero_is_always_he_or_always_she(told):
    others = {"she": r"\b(he|him|his|himself)\b", "he": r"\b(she|her|herself)\b"}
    for _, text in told:
        hero = names_in(text)[0]
        gender = "she" if hero in stories.load_grammar()["words"]["she"] else "he"
        assert not re.search(others[gender], text, re.IGNORECASE), text


def test_there_are_two_and_both_are_introduced(told):
    for _, text in told:
        hero, friend = dict.fromkeys(names_in(text))
        assert hero != friend


def test_stories_differ(write):
    texts = [record["text"] for record in records(write(stories.write_stories, 300, 1))]
    runs = []
    for text in texts:
        words = text.lower().split()
        runs.append({tuple(words[n : n + 5]) for n in range(len(words) - 4)})
    found = [len(a & b) / len(a | b) for a, b in itertools.combinations(runs, 2)]
    assert max(found) < 0.7
    assert sum(found) / len(found) < 0.1


def test_more_stories_start_with_the_same(write):
    few = write(stories.write_stories, 10, 3).read_text()
    assert write(stories.write_stories, 20, 3).read_text().startswith(few)
    assert not write(stories.write_stories, 10, 4).read_text().startswith(few)


def test_stories_are_not_repeated(write, monkeypatch):
    monkeypatch.setattr(stories, "tell", lambda generator: ("plot", str(generator.randrange(3))))
    path = write(stories.write_stories, 3, 1)
    assert sorted(record["text"] for record in records(path)) == ["0", "1", "2"]
    with pytest.raises(
        AtlasError, match=r"corpus.stories.examples: the grammar has no more than 3"
    ):
        write(stories.write_stories, 4, 1)
