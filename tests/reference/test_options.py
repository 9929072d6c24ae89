"""Options that are refused."""

import math

import pytest

from tests.reference.gradients import small_options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"positions": "absolute"},
            "positions is 'absolute'; it must be one of learned, ",
        ),
        ({"norm": "batch"}, "norm is 'batch'"),
        ({"norm_position": "between"}, "norm_position is 'between'"),
        ({"feed_forward": "tanh"}, "feed_forward is 'tanh'"),
        ({"qk_norm": "yes"}, "qk_norm is 'yes'; it must be one of None, head, all"),
        ({"n_layer": 0}, "n_layer is 0; it must be 1 or more"),
        ({"norm_eps": 0.0}, "norm_eps is 0.0; it must be greater than 0"),
        ({"rope_scaling": -1.0}, "rope_scaling is -1.0; it must be greater than 0"),
        ({"rope_theta": math.nan}, "rope_theta is nan"),
        ({"window": 0}, "window is 0"),
        ({"n_head": 3, "n_kv_head": 1}, "d_model 8 is not divisible by n_head 3"),
        ({"n_kv_head": 3}, "n_head 4 is not divisible by n_kv_head 3"),
        ({"n_head": 8}, "rotary_share of a head is 1 channels; it must be 2 or more and even"),
        ({"d_head": 6, "rotary_share": 0.5}, "rotary_share of a head is 3 channels"),
        ({"d_head": 0}, "d_head is 0; it must be 1 or more, or None"),
        ({"no_rope_every": 0}, "no_rope_every is 0"),
        ({"bias": "all"}, "bias is 'all'; it must be one of False, True, qkv"),
        ({"rope_scaling_kind": "dynamic"}, "rope_scaling_kind is 'dynamic'"),
        ({"rope_scaling_kind": "yarn"}, "yarn needs rope_scaling_context"),
    ],
)
def test_invalid_options_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        small_options(**changes)


def test_an_odd_head_size_is_allowed_without_rope():
    assert small_options(n_head=8, positions="alibi").head_size == 1
