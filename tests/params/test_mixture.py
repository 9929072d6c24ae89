"""Weights and shares of a mix of corpora, and the mistakes in one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.errors import AtlasError
from atlas.params.mixture import label_of, visits_per_epoch
from tests.params.test_schema import refusal
from tests.small import mix_of, small_params

ENTRIES = {"name": "stories"}, {"name": "arithmetic"}


@pytest.mark.parametrize(
    ("entry", "label"),
    [
        ("stories", "stories"),
        ({"name": "files"}, "files"),
        ({"name": "files", "path": "data/own/poems"}, "poems"),
        ({"name": "files", "path": "/home/me/My letters, 2020.txt"}, "My_letters_2020"),
        ({"name": "files", "path": ".."}, "files"),
        ({"name": "files", "path": "données/é.txt"}, "é"),
        ({"name": "files", "path": "data/own", "label": "mine"}, "mine"),
    ],
)
def test_a_corpus_is_called_after_its_path_or_name(entry, label):
    assert label_of(mix_of(entry)[0]) == label


def test_weights_count_visits():
    mix = mix_of("stories", {"name": "arithmetic", "weight": 0.1}, {"name": "files", "weight": 2})
    visits = visits_per_epoch(mix, {"stories": 10, "arithmetic": 30, "files": 7})
    assert visits == {"stories": 1, "arithmetic": Fraction(1, 10), "files": 2}


@given(
    st.lists(st.integers(1, 10**12), min_size=2, max_size=5),
    st.lists(st.integers(1, 1000), min_size=5, max_size=5),
)
def test_shares_are_exact(sizes, parts):
    names = ["stories", "arithmetic", "modular", "python-docs", "novels"][: len(sizes)]
    shares = [part / 10_000 for part in parts[: len(sizes) - 1]]
    shares.append(round(1 - sum(shares), 4))
    mix = mix_of(
        *({"name": name, "share": share} for name, share in zip(names, shares, strict=True))
    )
    visits = visits_per_epoch(mix, dict(zip(names, sizes, strict=True)))
    seen = [visits[name] * size for name, size in zip(names, sizes, strict=True)]
    assert sum(seen) == sum(sizes)
    assert [each / sum(sizes) for each in seen] == [Fraction(str(share)) for share in shares]


def test_shares_of_thirds_are_equal():
    mix = mix_of(*({"name": name, "share": 0.3333} for name in ("stories", "modular", "novels")))
    visits = visits_per_epoch(mix, {"stories": 10, "modular": 20, "novels": 30})
    assert visits == {"stories": 2, "modular": 1, "novels": Fraction(2, 3)}


def test_a_missing_corpus_is_an_error_unless_it_is_optional():
    with pytest.raises(AtlasError, match=r"corpus\.mix: stories has no text to train on"):
        visits_per_epoch(mix_of("stories", "novels"), {"novels": 5})
    mix = mix_of(
        {"name": "stories", "share": 0.5, "optional": True}, {"name": "novels", "share": 0.5}
    )
    assert visits_per_epoch(mix, {"novels": 5}) == {"novels": 1}
    with pytest.raises(AtlasError, match=r"corpus\.mix does not list babylm"):
        visits_per_epoch(mix, {"novels": 5, "babylm": 2})


@pytest.mark.parametrize(
    ("mix", "expected"),
    [
        ([], "corpus.mix is empty: list corpora"),
        ({"stories": 2}, "corpus.mix is {'stories': 2}: it must be a list"),
        ([5], "corpus.mix.0 is a section"),
        (["storys"], "corpus.mix.0.name is 'storys': it must be 'python-docs', "),
        (["storys"], "did you mean stories?"),
        (["mix"], "corpus.mix.0.name is 'mix': it must be"),
        (
            [{"name": "stories", "wieght": 2}],
            "corpus.mix.0.wieght is not a known key: did you mean",
        ),
        ([{"weight": 2}], "corpus.mix.0.name is missing"),
        *(
            (
                [{"name": "stories", "weight": weight}],
                f"corpus.mix.0.weight is {weight}: it must be",
            )
            for weight in (0, -1, -0.5, 1e9, float("nan"), float("inf"), True)
        ),
        ([{"name": "stories", "weight": "x"}], "corpus.mix.0.weight is 'x': it must be a valid"),
        ([{"name": "stories", "share": 0}], "corpus.mix.0.share is 0: it must be greater than 0"),
        (
            [{"name": "stories", "share": 50}],
            "share is 50: it must be less than or equal to 1 or null",
        ),
        (
            [{"name": "stories", "share": 0.5}, {"name": "novels", "share": 0.4}],
            "corpus.mix: the shares add up to 0.9; make it 1",
        ),
        ([{"name": "stories", "share": 0.5}, "novels"], "corpus.mix: novels has no share"),
        ([{"name": "stories", "share": 1, "weight": 1}], "stories has a weight and a share"),
        (["stories", "novels", "stories"], "corpus.mix: stories is listed twice"),
        ([{"name": "stories", "path": "a"}], "corpus.mix: stories takes no path"),
        (["files", {"name": "files", "path": "data/own/a"}], "data/own and data/own/a overlap"),
        (
            [{"name": "files", "path": "x/a"}, {"name": "files", "path": "./y/../x/a/"}],
            "x/a and ./y/../x/a/ overlap",
        ),
        (
            [{"name": "files", "path": "x/a"}, {"name": "files", "path": "y/A.txt"}],
            "corpus.mix: two corpora are called A; give one of them another name",
        ),
        ([{"name": "files", "label": "../x"}], "label is '../x': use only letters"),
    ],
)
def test_mistakes_in_a_mix(mix, expected):
    assert expected in refusal(**{"corpus.name": "mix", "corpus.mix": mix})


def test_a_mix_fits_the_other_params():
    assert "corpus.mix is empty: list corpora" in refusal(**{"corpus.name": "mix"})
    assert "corpus.mix is set, but corpus.name is" in refusal(**{"corpus.mix": ["stories"]})
    mix = {"corpus.name": "mix", "corpus.mix": ["stories", {"name": "novels", "weight": 2}]}
    assert "train.max_train_tokens takes the first" in refusal(
        **mix, **{"train.max_train_tokens": 9}
    )
    assert "which counts each text once" in refusal(**mix, **{"model.kind": "bigram"})
    small_params(**mix | {"corpus.mix": ["stories"], "model.kind": "bigram", "export.formats": []})
