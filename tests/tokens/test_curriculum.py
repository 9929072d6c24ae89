"""The shortest first."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.tokens.curriculum import Curriculum
from atlas.tokens.split import TokenSplit
from atlas.tokens.windows import Padded, TrainingWindows, layout_of
from tests.small import EOS, write_tokens

LENGTHS = np.array([3, 9, 4, 3, 4, 9])


def test_each_span_of_steps_adds_a_length():
    curriculum = Curriculum(LENGTHS, 30, seed=1)
    for steps, allowed in ((range(10), {0, 3}), (range(10, 20), {0, 2, 3, 4})):
        drawn = {number for step in steps for number in curriculum.windows(step, 8)}
        assert drawn == allowed
    assert {n for step in range(20, 30) for n in curriculum.windows(step, 8)} == set(range(6))


def test_draws_depend_on_seed_and_step_alone():
    one, other = Curriculum(LENGTHS, 30, 1), Curriculum(LENGTHS, 30, 2)
    assert one.windows(25, 50) == Curriculum(LENGTHS, 30, 1).windows(25, 50)
    assert one.windows(25, 50) != one.windows(26, 50)
    assert one.windows(25, 50) != other.windows(25, 50)


def documents(*lengths):
    return [[*range(3, length + 2), EOS] for length in lengths]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_lengths_are_those_of_the_windows(tmp_path_factory, lengths):
    tokens = write_tokens(
        tmp_path_factory.mktemp("tokens"), {"train": [documents(*lengths)]}, windows="padded"
    )
    layout = layout_of(TokenSplit(tokens, "train"), 6)
    assert isinstance(layout, Padded)
    found = [len(layout.window(number)) - 1 for number in range(len(layout))]
    assert layout.lengths().tolist() == found


def test_epochs_begin_after_it(tmp_path):
    tokens = write_tokens(tmp_path, {"train": [documents(3, 8, 5, 3)]}, windows="padded")
    split = TokenSplit(tokens, "train")
    plain = TrainingWindows(split, 8, 2, 1)
    first_short = TrainingWindows(split, 8, 2, 1, curriculum_steps=6)
    assert all(number in (0, 3) for step in (0, 1) for number, _ in first_short.places(step))
    assert [first_short.places(step) for step in (6, 7)] == [plain.places(step) for step in (0, 1)]
    rows = first_short.rows(0)
    assert (rows[:, 4:] < 0).all()


def test_packed_windows_are_all_alike(tmp_path):
    split = TokenSplit(write_tokens(tmp_path, {"train": [documents(9, 9, 9)]}), "train")
    assert layout_of(split, 4).lengths().tolist() == [4] * layout_of(split, 4).per_epoch()
