"""Position encodings and attention masks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.reference.positions import (
    alibi_bias,
    alibi_slopes,
    attention_mask,
    rope_forward,
    rope_frequencies,
    rope_rotation,
    sinusoidal_table,
    token_positions,
    visible_keys,
)
from tests.reference.gradients import small_options


def test_padding_does_not_move_a_token():
    mask = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 0]], dtype=bool)
    expected = [[0, 1, 2, 3], [0, 0, 0, 1], [0, 0, 1, 1]]
    assert token_positions(4, mask).tolist() == expected
    assert token_positions(4, None).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("d_model", [6, 7])
def test_the_sinusoidal_table_is_the_papers_divided_by_the_root_of_channels(d_model):
    table = sinusoidal_table(5, d_model)
    for t in range(5):
        for channel in range(d_model):
            angle = t / 10_000 ** (channel // 2 * 2 / d_model)
            wave = math.sin(angle) if channel % 2 == 0 else math.cos(angle)
            assert table[t, channel] == pytest.approx(wave / math.sqrt(d_model))


def test_rope_scores_depend_only_on_distances():
    generator = np.random.default_rng(0)
    rotation = rope_rotation(np.arange(20)[None], small_options(d_head=8), np.float64)
    query, key = (np.broadcast_to(generator.normal(size=8), (1, 1, 20, 8)) for _ in range(2))
    scores = rope_forward(query, rotation)[0] @ rope_forward(key, rotation)[0].swapaxes(-1, -2)
    for distance in range(5):
        diagonal = np.diagonal(scores[0, 0], -distance)
        assert np.allclose(diagonal, diagonal[0], atol=1e-12)


def test_rope_scaling_divides_positions():
    positions = np.arange(6)[None]
    plain, scaled = (small_options(d_head=8, rope_scaling=scaling) for scaling in (1.0, 4.0))
    stretched = rope_rotation(positions * 4, scaled, np.float64)
    assert np.allclose(stretched, rope_rotation(positions, plain, np.float64), rtol=0, atol=1e-15)


# Of eight pairs, 0 and 1 turn more than 4 times in 64 positions, 5 to 7 less than once.
def llama3(scaling, turns, frequency):
    """The equation of Llama 3.1's code."""
    if turns < 1:
        return frequency / scaling
    if turns > 4:
        return frequency
    smooth = (turns - 1) / (4 - 1)
    return (1 - smooth) * frequency / scaling + smooth * frequency


def test_llama3_keeps_fast_pairs_and_stretches_slow_ones():
    options = small_options(
        d_head=16,
        rope_theta=100.0,
        rope_scaling=8.0,
        rope_scaling_kind="llama3",
        rope_scaling_context=64,
    )
    frequencies, length = rope_frequencies(options)
    plain = 100.0 ** (-np.arange(8) / 8)
    expected = [llama3(8.0, 64 * each / (2 * math.pi), each) for each in plain]
    assert np.allclose(frequencies, expected, rtol=1e-14)
    assert list(frequencies == plain) == [True] * 2 + [False] * 6
    assert np.allclose((frequencies / plain)[5:], 1 / 8, rtol=1e-14)
    assert length == 1


def test_yarn_blends_between_whole_pairs_and_lengthens_the_points():
    options = small_options(
        d_head=16,
        rope_theta=100.0,
        rope_scaling=4.0,
        rope_scaling_kind="yarn",
        rope_scaling_context=64,
        rope_scaling_rotations=(1.0, 4.0),
    )
    frequencies, length = rope_frequencies(options)
    # Pair 1.6 turns 4 times and pair 4.03 once, so 1 is kept and 5 is the first fully scaled one.
    kept = np.array([1, 1, 0.75, 0.5, 0.25, 0, 0, 0])
    assert np.allclose(frequencies, 100.0 ** (-np.arange(8) / 8) * (kept + (1 - kept) / 4))
    assert length == pytest.approx(0.1 * math.log(4) + 1)
    query = np.random.default_rng(0).normal(size=(1, 1, 5, 16))
    rotated, _ = rope_forward(query, rope_rotation(np.arange(5)[None], options, np.float64))
    ratios = np.linalg.norm(rotated, axis=-1) / np.linalg.norm(query, axis=-1)
    assert np.allclose(ratios, length)


def test_only_a_share_of_the_channels_rotates():
    options = small_options(d_head=16, rotary_share=0.25)
    x = np.random.default_rng(0).normal(size=(1, 2, 5, 16))
    positions = np.arange(5)[None]
    rotated, _ = rope_forward(x, rope_rotation(positions, options, np.float64))
    alone = rope_rotation(positions, small_options(d_head=4), np.float64)
    assert np.array_equal(rotated[..., 4:], x[..., 4:])
    assert np.array_equal(rotated[..., :4], rope_forward(x[..., :4], alone)[0])


def authors_slopes(n_head):
    """Slopes by the definition in the authors' code (ofirpress/attention_with_linear_biases)."""

    def power_of_two(n):
        start = 2 ** (-(2 ** -(math.log2(n) - 3)))
        return [start * start**i for i in range(n)]

    if math.log2(n_head).is_integer():
        return power_of_two(n_head)
    closest = 2 ** math.floor(math.log2(n_head))
    return power_of_two(closest) + authors_slopes(2 * closest)[0::2][: n_head - closest]


@given(st.integers(1, 70))
def test_alibi_slopes_equal_the_authors(n_head):
    assert np.allclose(alibi_slopes(n_head), authors_slopes(n_head), rtol=1e-12)


def test_alibi_lowers_scores_by_slope_times_distance():
    bias = alibi_bias(np.array([[0, 0, 1, 2]]), 2)
    assert bias.shape == (1, 2, 4, 4)
    assert bias[0, 0, 3].tolist() == [-2 / 16, -2 / 16, -1 / 16, 0]
    assert bias[0, 1, 3].tolist() == [-2 / 256, -2 / 256, -1 / 256, 0]


def draw(visible):
    return ["".join("x" if sees else "." for sees in row) for row in visible]


def test_a_token_sees_itself_and_those_before_it():
    assert draw(visible_keys(np.arange(3)[None], None, 0)[0]) == ["x..", "xx.", "xxx"]


def test_a_window_limits_the_keys():
    visible = visible_keys(np.arange(4)[None], None, 2)[0]
    assert draw(visible) == ["x...", "xx..", ".xx.", "..xx"]


def test_only_padding_sees_padding_and_a_window_counts_only_tokens():
    mask = np.array([[False, True, False, True, True]])
    positions = token_positions(5, mask)
    assert draw(visible_keys(positions, mask, 0)[0]) == [
        "x....",
        ".x...",
        ".xx..",
        ".x.x.",
        ".x.xx",
    ]
    assert draw(visible_keys(positions, mask, 2)[0])[3:] == [".x.x.", "...xx"]


def test_the_mask_is_boolean_or_with_alibi_a_bias():
    positions = np.arange(3)[None]
    assert attention_mask(small_options(), positions, None, np.float32).dtype == bool
    mask = attention_mask(small_options(positions="alibi"), positions, None, np.float32)
    assert mask.dtype == np.float32
    assert mask.shape == (1, 4, 3, 3)
    assert np.array_equal(np.isneginf(mask[0, 0]), ~np.tri(3, dtype=bool))
